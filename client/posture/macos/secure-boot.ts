import { off, on, unknown, type Finding } from '../finding.ts';
import { linesOf, type ToolAnswer } from '../run-tool.ts';

/** What can be known of how the machine started. */
export interface MacBootEvidence {
  /** `csrutil status` */
  readonly csrutil: ToolAnswer;
  /** `nvram …:AppleSecureBootPolicy`: a Mac with a T2 chip */
  readonly nvram: ToolAnswer;
  /** `system_profiler SPiBridgeDataType`: a Mac with Apple silicon */
  readonly profiler: ToolAnswer | undefined;
}

/** Whether the Mac starts with full security and System Integrity Protection. */
export function judgeMacSecureBoot(evidence: MacBootEvidence): Finding {
  const protection = lineAfter(evidence.csrutil, 'System Integrity Protection status: ');
  if (protection === 'disabled.') return off('System Integrity Protection is off (csrutil)');
  const policy = readPolicy(evidence);
  if (policy === undefined) return unknown('how the Mac starts could not be read');
  if (policy !== 'Full') return off(`the Mac starts with ${policy.toLowerCase()} security`);
  return protection === 'enabled.'
    ? on('full security, System Integrity Protection on (csrutil)')
    : unknown('csrutil was not understood');
}

const nvramPolicies: Readonly<Record<string, string>> = {
  '%00': 'No',
  '%01': 'Medium',
  '%02': 'Full',
};

function readPolicy({ nvram, profiler }: MacBootEvidence): string | undefined {
  if (!('failure' in nvram) && nvram.exitCode === 0) {
    const value = /:AppleSecureBootPolicy\t(%0[0-2])$/.exec(nvram.stdout.trim().slice(-256))?.[1];
    return value === undefined ? undefined : nvramPolicies[value];
  }
  const words = profiler && lineAfter(profiler, 'Secure Boot: ');
  return /^(Full|Reduced|Permissive|Medium|No) Security$/.exec(words ?? '')?.[1];
}

function lineAfter(answer: ToolAnswer, start: string): string | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  return linesOf(answer.stdout)
    .find((line) => line.startsWith(start))
    ?.slice(start.length);
}
