import { off, on, unknown, type Finding } from '../finding.ts';
import type { ToolAnswer } from '../run-tool.ts';
import { isVirtualModel } from '../virtual-model.ts';

/** Whether the system runs on the machine itself: `systemd-detect-virt`, else what the firmware calls the machine. */
export function parseDetectVirt(answer: ToolAnswer, vendor: string, product: string): Finding {
  if (!('failure' in answer)) {
    const word = answer.stdout.trim();
    // It exits with 1 when it finds nothing.
    if (word === 'none' && answer.exitCode === 1)
      return on('no virtual machine (systemd-detect-virt)');
    if (answer.exitCode === 0 && word !== 'none' && /^[a-z][a-z0-9-]{1,30}$/.test(word))
      return off(`${word} (systemd-detect-virt)`);
  }
  return isVirtualModel(vendor, product)
    ? off(`${vendor} ${product}`.trim())
    : unknown('systemd-detect-virt was not understood');
}
