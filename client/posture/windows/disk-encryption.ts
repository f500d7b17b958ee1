import * as v from 'valibot';
import { off, on, unknown, type Finding } from '../finding.ts';
import { sectionOf, whole, type WindowsReport } from './report.ts';

const bitLockerSchema = v.object({ protection: whole, volume: whole });

/** Whether BitLocker protects the system drive: by `Get-BitLockerVolume` for an administrator, else by what Explorer shows. */
export function judgeBitLocker(report: WindowsReport | undefined): Finding {
  const volume = sectionOf(report, 'bitlocker', bitLockerSchema);
  if (volume?.protection === 1 && volume.volume === 1)
    return on('BitLocker is on (Get-BitLockerVolume)');
  if (volume?.protection === 0 || volume?.protection === 1)
    return off('BitLocker does not protect the whole drive (Get-BitLockerVolume)');
  const shell = sectionOf(report, 'shellProtection', whole);
  if (shell === undefined) return unknown('BitLocker could not be asked');
  switch (shell) {
    case 1:
      return on('BitLocker is on (BitLockerProtection)');
    case 2:
      return off('BitLocker is off (BitLockerProtection)');
    case 3:
    case 4:
      return off('BitLocker is at work and not done (BitLockerProtection)');
    case 5:
      return off('BitLocker is suspended (BitLockerProtection)');
    default:
      return unknown(`BitLockerProtection is ${shell}`);
  }
}
