import { off, on, unknown, type Finding } from '../finding.ts';
import type { FileAnswer } from '../read-file.ts';
import { linesOf, type ToolAnswer } from '../run-tool.ts';

/** What can be known of how the machine started. */
export interface BootEvidence {
  /** False when it did not start by UEFI at all. */
  readonly hasFirmware: boolean;
  /** The variables SecureBoot and MokSBStateRT: four bytes of attributes, then the value. */
  readonly secureBoot: FileAnswer;
  readonly shimState: FileAnswer;
  /** `mokutil --sb-state`, where the variable could not be read. */
  readonly mokutil?: ToolAnswer | undefined;
}

/** Whether the firmware, and the shim that it starts, let only signed code start. */
export function judgeSecureBoot(evidence: BootEvidence): Finding {
  if (!evidence.hasFirmware) return off('the machine did not start by UEFI');
  const shim = readFlag(evidence.shimState);
  if (shim === 1) return off('the shim starts what is not signed (MokSBStateRT)');
  const flag = readFlag(evidence.secureBoot);
  if (flag === 1) return on('the firmware says so (SecureBoot)');
  if (flag === 0) return off('the firmware says so (SecureBoot)');
  return judgeMokutil(evidence.mokutil);
}

function judgeMokutil(answer: ToolAnswer | undefined): Finding {
  if (!answer || 'failure' in answer || answer.exitCode !== 0)
    return unknown('the firmware could not be asked');
  const lines = linesOf(answer.stdout);
  if (lines.includes('SecureBoot disabled')) return off('SecureBoot disabled (mokutil)');
  if (lines.includes('SecureBoot validation is disabled in shim'))
    return off('the shim starts what is not signed (mokutil)');
  return lines.length === 1 && lines[0] === 'SecureBoot enabled'
    ? on('SecureBoot enabled (mokutil)')
    : unknown('mokutil was not understood');
}

function readFlag(answer: FileAnswer): number | undefined {
  return !('failure' in answer) && answer.bytes.length === 5 ? answer.bytes[4] : undefined;
}
