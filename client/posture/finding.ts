import type { CheckResult } from '../../protocol/index.ts';

/** What a check found on this machine, and how in a few words. */
export interface Finding {
  readonly result: CheckResult;
  readonly how: string;
}

/** As long as the wire lets the words of a finding be. */
const maxHowLength = 128;

export const on = (how: string): Finding => ({ result: 'on', how: plainText(how, maxHowLength) });
export const off = (how: string): Finding => ({ result: 'off', how: plainText(how, maxHowLength) });
export const unknown = (how: string): Finding => ({
  result: 'unknown',
  how: plainText(how, maxHowLength),
});

/** `text` as one line of printable ASCII of at most `max` characters: whatever a tool printed, it can be sent and shown. */
export function plainText(text: string, max: number): string {
  return text
    .slice(0, max)
    .replace(/[^\x20-\x7e]/g, '?')
    .trim();
}
