import { off, on, unknown, type Finding } from '../finding.ts';
import { linesOf, type ToolAnswer } from '../run-tool.ts';

/** A machine left alone is locked within so long. */
const maxIdleSeconds = 900;

/**
 * Whether GNOME locks: `screensaver` is what `gsettings list-recursively org.gnome.desktop.screensaver` says, `idleDelay`
 * what `gsettings get org.gnome.desktop.session idle-delay` does.
 */
export function parseGnomeLock(screensaver: ToolAnswer, idleDelay: ToolAnswer): Finding {
  const settings = readSettings(screensaver);
  const idle = outputOf(idleDelay)?.trim();
  const lock = settings?.get('lock-enabled');
  const idleSeconds = readUint(idle);
  const delaySeconds = readUint(settings?.get('lock-delay'));
  if (lock === 'false') return off('GNOME does not lock (lock-enabled)');
  if (lock !== 'true' || idleSeconds === undefined || delaySeconds === undefined)
    return unknown('gsettings was not understood');
  if (idleSeconds === 0) return off('GNOME never finds itself idle (idle-delay)');
  return judgeDelay('GNOME', idleSeconds + delaySeconds);
}

/** Whether KDE locks, by kscreenlockerrc of the user and of the system; what neither names is as KDE has it: locked after 5 min. */
export function parseKdeLock(user: string | undefined, system: string | undefined): Finding {
  const settings = new Map([...readDaemonGroup(system ?? ''), ...readDaemonGroup(user ?? '')]);
  const isLocking = settings.get('autolock') ?? 'true';
  const minutes = settings.get('timeout') ?? '5';
  const grace = settings.get('lockgrace') ?? '5';
  if (isLocking === 'false') return off('KDE does not lock (kscreenlockerrc)');
  if (isLocking !== 'true' || !/^\d{1,6}$/.test(minutes) || !/^\d{1,6}$/.test(grace))
    return unknown('kscreenlockerrc was not understood');
  if (Number(minutes) === 0) return off('KDE never locks (kscreenlockerrc)');
  return judgeDelay('KDE', Number(minutes) * 60 + Number(grace));
}

function judgeDelay(desktop: string, seconds: number): Finding {
  return seconds <= maxIdleSeconds
    ? on(`${desktop} locks after ${seconds} s`)
    : off(`${desktop} locks after ${seconds} s; at most ${maxIdleSeconds} s are healthy`);
}

function outputOf(answer: ToolAnswer): string | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  // Without its database it prints what the settings are by default.
  return /\bmemory\b.*backend/i.test(answer.stderr) ? undefined : answer.stdout;
}

function readSettings(answer: ToolAnswer): Map<string, string> | undefined {
  const text = outputOf(answer);
  if (text === undefined) return undefined;
  const settings = new Map<string, string>();
  for (const line of linesOf(text)) {
    const [schema, key, ...value] = line.split(' ');
    if (schema !== 'org.gnome.desktop.screensaver' || key === undefined) return undefined;
    settings.set(key, value.join(' '));
  }
  return settings;
}

function readUint(text: string | undefined): number | undefined {
  const digits = /^uint32 (\d{1,10})$/.exec(text ?? '')?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The members of `[Daemon]`, by name in lower case. */
function readDaemonGroup(text: string): Map<string, string> {
  const members = new Map<string, string>();
  let isInside = false;
  for (const line of linesOf(text)) {
    if (line.startsWith('[')) isInside = line.startsWith('[Daemon]');
    const at = line.indexOf('=');
    if (!isInside || at < 1) continue;
    // `[$i]` after a name marks what the user may not change.
    const name = line
      .slice(0, at)
      .trim()
      .replace(/\[\$.{1,3}\]$/, '');
    members.set(
      name.toLowerCase(),
      line
        .slice(at + 1)
        .trim()
        .toLowerCase(),
    );
  }
  return members;
}
