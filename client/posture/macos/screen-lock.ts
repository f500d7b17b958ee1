import { off, on, unknown, type Finding } from '../finding.ts';
import { describeFailure, linesOf, type ToolAnswer } from '../run-tool.ts';

/** A password is asked for within so long of the screen saver's start. */
const maxDelaySeconds = 300;

/** The screen saver starts, or the display sleeps, within so long. */
const maxIdleSeconds = 900;

/**
 * Whether the screen locks: `sysadminctl -screenLock status`, which answers on standard error, says how soon a password is asked
 * for; `defaults -currentHost read com.apple.screensaver idleTime` and `pmset -g` how soon that begins.
 */
export function parseMacScreenLock(
  sysadminctl: ToolAnswer,
  idleTime: ToolAnswer,
  pmset: ToolAnswer,
): Finding {
  if ('failure' in sysadminctl) return unknown(describeFailure('sysadminctl', sysadminctl));
  const delay = readDelay(sysadminctl.stdout + sysadminctl.stderr);
  if (delay === undefined) return unknown('sysadminctl was not understood');
  if (delay === 'off') return off('the screen does not lock (sysadminctl)');
  if (delay > maxDelaySeconds) return off(`a password is asked for after ${delay} s (sysadminctl)`);
  const waits = [readSaver(idleTime), readDisplaySleep(pmset)];
  if (waits.every((wait) => wait === undefined))
    return unknown('when the screen goes off is not known');
  const idle = Math.min(...waits.filter((wait) => wait !== undefined));
  return idle + delay <= maxIdleSeconds + maxDelaySeconds && idle <= maxIdleSeconds
    ? on(`locks after ${idle + delay} s (sysadminctl, pmset)`)
    : off(`the screen stays on for long; at most ${maxIdleSeconds} s are healthy`);
}

function readDelay(text: string): number | 'off' | undefined {
  for (const line of linesOf(text)) {
    if (/\bscreenLock (?:delay )?is off$/.test(line)) return 'off';
    if (/\bscreenLock delay is immediate$/.test(line)) return 0;
    const seconds = /\bscreenLock delay is (-?\d{1,9})(?:\.\d{1,9})? seconds?$/.exec(line)?.[1];
    if (seconds !== undefined) return Number(seconds) < 0 ? 'off' : Number(seconds);
  }
  return undefined;
}

/** Seconds until the screen saver starts; never is Infinity, not known is undefined. */
function readSaver(answer: ToolAnswer): number | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  const digits = /^(\d{1,9})$/.exec(answer.stdout.trim())?.[1];
  return digits === undefined ? undefined : Number(digits) || Infinity;
}

function readDisplaySleep(answer: ToolAnswer): number | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  for (const line of linesOf(answer.stdout)) {
    const minutes = /^displaysleep\s{1,40}(\d{1,6})\b/.exec(line)?.[1];
    if (minutes !== undefined) return Number(minutes) * 60 || Infinity;
  }
  return undefined;
}
