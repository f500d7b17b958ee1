import * as v from 'valibot';
import { off, on, unknown, type Finding } from '../finding.ts';
import { sectionOf, type WindowsReport } from './report.ts';

/** A machine left alone is locked within so long. */
const maxIdleSeconds = 900;

const lockSchema = v.record(v.string(), v.nullable(v.union([v.string(), v.number()])));

/** Whether Windows locks: after the inactivity that a policy names, or with a screen saver that asks for a password. */
export function judgeWindowsScreenLock(report: WindowsReport | undefined): Finding {
  const lock = sectionOf(report, 'lock', lockSchema);
  // Every script that ran has looked at each of these, found or not.
  if (!lock || !Object.hasOwn(lock, 'inactivitySeconds'))
    return unknown('the registry could not be read');
  const seconds = readSeconds(lock['inactivitySeconds']);
  if (seconds !== undefined && seconds > 0 && seconds <= maxIdleSeconds)
    return on(`locks after ${seconds} s (InactivityTimeoutSecs)`);
  const setting = (name: string) => lock[`policy${name}`] ?? lock[`user${name}`] ?? null;
  const wait = readSeconds(setting('ScreenSaveTimeOut'));
  const isSaving =
    readSeconds(setting('ScreenSaveActive')) === 1 && Boolean(setting('SCRNSAVEEXE'));
  const isSecure = readSeconds(setting('ScreenSaverIsSecure')) === 1;
  if (!isSaving || !isSecure) return off('no screen saver asks for a password (registry)');
  return wait !== undefined && wait > 0 && wait <= maxIdleSeconds
    ? on(`the screen saver locks after ${wait} s (registry)`)
    : off(`the screen saver waits too long; at most ${maxIdleSeconds} s are healthy`);
}

function readSeconds(value: string | number | null | undefined): number | undefined {
  return /^\d{1,9}$/.test(String(value)) ? Number(value) : undefined;
}
