import * as v from 'valibot';
import { off, on, unknown, type Finding } from '../finding.ts';
import { isProductOn, productsSchema } from './product.ts';
import { sectionOf, whole, type WindowsReport } from './report.ts';

const profileSchema = v.object({ name: v.string(), enabled: whole });

const profileNames = ['Domain', 'Private', 'Public'];

/** Whether Windows' firewall is on for every kind of network, or another product's is. */
export function judgeWindowsFirewall(report: WindowsReport | undefined): Finding {
  const products = sectionOf(report, 'firewallProducts', productsSchema) ?? [];
  const other = products.find(isProductOn);
  if (other) return on(`${other.name} is on (FirewallProduct)`);
  const profiles = sectionOf(report, 'firewall', v.array(profileSchema)) ?? [];
  const named = profileNames.map((name) => profiles.find((profile) => profile.name === name));
  const open = named.find((profile) => profile?.enabled === 0);
  if (open) return off(`it is off in ${open.name} networks (Get-NetFirewallProfile)`);
  return named.every((profile) => profile?.enabled === 1)
    ? on('it is on in all networks (Get-NetFirewallProfile)')
    : unknown('the firewall could not be asked');
}
