import { off, on, unknown, type Finding } from '../finding.ts';
import { linesOf } from '../run-tool.ts';

/** Updates that install themselves have done so within this. */
const maxAgeDays = 7;

const dayMs = 86_400_000;

/** What can be known of updates without asking the network. */
export interface PatchEvidence {
  readonly nowMs: number;
  /** /run/reboot-required exists; undefined when that could not be seen. */
  readonly isRebootRequired: boolean | undefined;
  /** When unattended-upgrades last went through. */
  readonly unattendedAtMs: number | undefined;
  /** /var/lib/update-notifier/updates-available, where there is one. */
  readonly updatesAvailable: string | undefined;
}

/** Whether security updates are in: those of Debian and Ubuntu install themselves and say when they did. */
export function judgePatched(evidence: PatchEvidence): Finding {
  const { nowMs, isRebootRequired, unattendedAtMs, updatesAvailable } = evidence;
  if (isRebootRequired === true) return off('updates wait for a restart (reboot-required)');
  if (isRebootRequired === undefined) return unknown('whether a restart is needed cannot be seen');
  const waiting = securityUpdates(updatesAvailable ?? '');
  if (waiting === undefined) return unknown('updates-available was not understood');
  if (waiting > 0) return off(`${waiting} security updates wait (updates-available)`);
  if (unattendedAtMs === undefined) return unknown('no record of updates is known here');
  const days = Math.floor((nowMs - unattendedAtMs) / dayMs);
  if (days < -1) return unknown('the record of updates is from the future');
  return days <= maxAgeDays
    ? on(`unattended-upgrades ran ${Math.max(days, 0)} days ago`)
    : off(`unattended-upgrades ran ${days} days ago`);
}

/** How many security updates wait, by what update-notifier says; undefined when it is not understood. */
function securityUpdates(text: string): number | undefined {
  const lines = linesOf(text);
  if (lines.length === 0) return 0;
  for (const line of lines) {
    const count =
      /^(\d{1,6}) (?:of these )?updates? (?:is|are)(?: a)?(?: standard)? security updates?\.?$/i;
    const [, security] = count.exec(line) ?? [];
    if (security !== undefined) return Number(security);
  }
  const isNone = lines.some((line) =>
    /^0 updates can be (?:applied|installed) immediately\.$/.test(line),
  );
  const isAny = lines.some((line) => /^\d{1,6} updates? can be (?:applied|installed)/.test(line));
  return isNone || isAny ? 0 : undefined;
}
