import { off, on, unknown, type Finding } from '../finding.ts';
import { describeFailure, linesOf, type ToolAnswer } from '../run-tool.ts';

/** Whether FileVault protects the start volume, by `fdesetup status`. Half-way counts as not yet. */
export function parseFileVault(answer: ToolAnswer): Finding {
  if ('failure' in answer) return unknown(describeFailure('fdesetup', answer));
  const lines = linesOf(answer.stdout);
  if (lines.some((line) => /^(?:Encryption|Decryption) in progress\b/.test(line)))
    return off('FileVault is at work and not done (fdesetup)');
  if (lines.includes('FileVault is Off.')) return off('FileVault is off (fdesetup)');
  return answer.exitCode === 0 && lines[0] === 'FileVault is On.'
    ? on('FileVault is on (fdesetup)')
    : unknown('fdesetup was not understood');
}
