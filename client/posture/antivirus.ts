import { off, on, unknown, type Finding } from './finding.ts';
import type { RunningProcess } from './process-list.ts';

/**
 * Processes that watch a machine for malware, by the name they run under, cut to 15 characters as Linux does. What merely
 * gathers facts, such as osqueryd, is not one of them.
 */
const watchers: Readonly<Record<string, string>> = {
  // Linux
  'falcon-sensor': 'CrowdStrike Falcon',
  'falcon-sensor-b': 'CrowdStrike Falcon',
  clamd: 'ClamAV',
  wdavdaemon: 'Microsoft Defender',
  's1-agent': 'SentinelOne',
  'sentinelone-age': 'SentinelOne',
  sentinelagent: 'SentinelOne',
  cbagentd: 'Carbon Black',
  'elastic-endpoin': 'Elastic Defend',
  sophos_threat_d: 'Sophos',
  ds_am: 'Trend Micro',
  xagt: 'Trellix',
  pmd: 'Cortex XDR',
  bdsecd: 'Bitdefender',
  oaeventd: 'ESET',
  kesl: 'Kaspersky',
  // macOS
  'com.crowdstrike.falcon.Agent': 'CrowdStrike Falcon',
  wdavdaemon_enterprise: 'Microsoft Defender',
  sentineld: 'SentinelOne',
  SentinelAgent: 'SentinelOne',
  'com.sophos.endpoint.scanextension': 'Sophos',
  SophosScanD: 'Sophos',
  JamfDaemonProtect: 'Jamf Protect',
  BDLDaemon: 'Bitdefender',
  'com.apple.XProtectFramework.plugins.1': 'XProtect',
  XProtect: 'XProtect',
  XprotectService: 'XProtect',
  XProtectBehaviorService: 'XProtect',
  XProtectPluginService: 'XProtect',
};

/**
 * Whether something that watches for malware runs. What the user has started does not count, unless that is root: a program
 * can give itself any name.
 */
export function findAntivirus(
  processes: readonly RunningProcess[] | undefined,
  ownUid: number | undefined,
): Finding {
  if (!processes) return unknown('the running processes cannot be seen');
  for (const { name, uid } of processes) {
    const product = Object.hasOwn(watchers, name) ? watchers[name] : undefined;
    if (product === undefined || (uid === ownUid && ownUid !== 0)) continue;
    return on(`${product} runs (${name})`);
  }
  return off('no known antivirus or EDR runs');
}
