import { off, on, unknown, type Finding } from '../finding.ts';
import { linesOf, type ToolAnswer } from '../run-tool.ts';

/** The version of macOS by `sw_vers -productVersion`: `14.5`; empty when it was not understood. */
export function parseSwVers(answer: ToolAnswer): string {
  if ('failure' in answer || answer.exitCode !== 0) return '';
  return /^\d{1,4}(?:\.\d{1,4}){0,3}$/.exec(answer.stdout.trim())?.[0] ?? '';
}

/** Whether this is a Mac itself: `sysctl -n kern.hv_vmm_present`. */
export function parseHypervisor(answer: ToolAnswer): Finding {
  const value = 'failure' in answer || answer.exitCode !== 0 ? '' : answer.stdout.trim();
  if (value === '0') return on('no virtual machine (kern.hv_vmm_present)');
  if (value === '1') return off('a virtual machine (kern.hv_vmm_present)');
  return unknown('kern.hv_vmm_present could not be read');
}

/** Updates are looked for within this. */
const maxAgeDays = 14;

/** Whether recommended updates are in, by `defaults read /Library/Preferences/com.apple.SoftwareUpdate`. */
export function parseSoftwareUpdate(answer: ToolAnswer, nowMs: number): Finding {
  if ('failure' in answer || answer.exitCode !== 0)
    return unknown('com.apple.SoftwareUpdate could not be read');
  const members = new Map(
    linesOf(answer.stdout).flatMap((line) => {
      const [, name, value] = /^(\w{1,64}) = "?([^"]{0,64}?)"?;$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value] as const];
    }),
  );
  const waiting = members.get('LastRecommendedUpdatesAvailable') ?? '';
  const lookedAtMs = Date.parse(isoTime(members.get('LastSuccessfulDate') ?? ''));
  if (!/^\d{1,4}$/.test(waiting) || Number.isNaN(lookedAtMs))
    return unknown('com.apple.SoftwareUpdate was not understood');
  if (Number(waiting) > 0) return off(`${waiting} recommended updates wait (SoftwareUpdate)`);
  const days = Math.floor((nowMs - lookedAtMs) / 86_400_000);
  if (days < -1) return unknown('the record of updates is from the future');
  return days <= maxAgeDays
    ? on(`no update waits, looked for ${Math.max(days, 0)} days ago`)
    : off(`updates were last looked for ${days} days ago`);
}

/** `2026-05-01 10:11:12 +0000` as ISO 8601 has it. */
const isoTime = (text: string): string =>
  text.replace(/^(\S{10}) (\S{8}) ([+-]\d{2})(\d{2})$/, '$1T$2$3:$4');
