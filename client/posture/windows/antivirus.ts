import * as v from 'valibot';
import { off, on, unknown, type Finding } from '../finding.ts';
import { isProductCurrent, isProductOn, productsSchema } from './product.ts';
import { sectionOf, whole, type WindowsReport } from './report.ts';

/** Definitions of Defender are no older than this. */
const maxSignatureDays = 7;

const defenderSchema = v.object({
  isRunning: v.boolean(),
  isWatching: v.boolean(),
  signatureDays: whole,
});

/** Whether an antivirus watches with current definitions: by the security center, else Defender by itself. */
export function judgeWindowsAntivirus(report: WindowsReport | undefined): Finding {
  const products = sectionOf(report, 'antivirusProducts', productsSchema);
  const running = products?.filter(isProductOn) ?? [];
  const current = running.find(isProductCurrent);
  if (current) return on(`${current.name} is on (AntiVirusProduct)`);
  if (running[0]) return off(`${running[0].name} is out of date (AntiVirusProduct)`);
  if (products?.[0]) return off(`${products[0].name} is off (AntiVirusProduct)`);
  const defender = sectionOf(report, 'defender', defenderSchema);
  if (!defender) return unknown('no antivirus could be asked');
  if (!defender.isRunning || !defender.isWatching)
    return off('Defender does not watch (Get-MpComputerStatus)');
  return defender.signatureDays >= 0 && defender.signatureDays <= maxSignatureDays
    ? on('Defender is on (Get-MpComputerStatus)')
    : off('Defender is out of date (Get-MpComputerStatus)');
}
