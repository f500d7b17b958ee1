import * as v from 'valibot';
import { off, on, unknown, type Finding } from '../finding.ts';
import { isVirtualModel } from '../virtual-model.ts';
import { sectionOf, whole, type WindowsReport } from './report.ts';

/** Windows is given updates every month, and some days to take them. */
const maxUpdateDays = 45;

const osSchema = v.object({ version: v.string(), revision: whole });
const computerSchema = v.object({ manufacturer: v.string(), model: v.string() });

/** Whether only signed code starts: `Confirm-SecureBootUEFI` for an administrator, else what Windows noted when it started. */
export function judgeWindowsSecureBoot(report: WindowsReport | undefined): Finding {
  const confirmed = sectionOf(report, 'secureBoot', v.boolean());
  if (confirmed === true) return on('Confirm-SecureBootUEFI says so');
  if (confirmed === false) return off('Confirm-SecureBootUEFI says so');
  const state = sectionOf(report, 'secureBootState', whole);
  if (state === 1) return on('Windows says so (UEFISecureBootEnabled)');
  return state === 0
    ? off('Windows says so (UEFISecureBootEnabled)')
    : unknown('the firmware could not be asked');
}

/** The version of Windows with its revision, `10.0.22631.3737`; empty when it was not understood. */
export function readWindowsVersion(report: WindowsReport | undefined): string {
  const os = sectionOf(report, 'os', osSchema);
  if (!os || !/^\d{1,4}\.\d{1,4}\.\d{1,9}$/.test(os.version)) return '';
  return os.revision > 0 ? `${os.version}.${os.revision}` : os.version;
}

/** Whether updates are in: one was installed lately, and none waits for a restart. */
export function judgeWindowsPatched(report: WindowsReport | undefined): Finding {
  const isRestartNeeded = sectionOf(report, 'isRestartNeeded', v.boolean());
  if (isRestartNeeded === true) return off('updates wait for a restart (RebootRequired)');
  const days = sectionOf(report, 'updatedDaysAgo', whole);
  if (isRestartNeeded === undefined || days === undefined || days < -1)
    return unknown('when updates were installed is not known');
  return days <= maxUpdateDays
    ? on(`updated ${Math.max(days, 0)} days ago (Get-HotFix)`)
    : off(`updated ${days} days ago (Get-HotFix)`);
}

/** Whether Windows runs on the machine itself, by what its firmware calls it. */
export function judgeWindowsPhysical(report: WindowsReport | undefined): Finding {
  const computer = sectionOf(report, 'computer', computerSchema);
  if (!computer || computer.manufacturer.trim() === '' || computer.model.trim() === '')
    return unknown('Win32_ComputerSystem could not be read');
  const name = `${computer.manufacturer} ${computer.model}`;
  return isVirtualModel(computer.manufacturer, computer.model)
    ? off(`${name} (Win32_ComputerSystem)`)
    : on(`${name} (Win32_ComputerSystem)`);
}
