import { always, type Collection, type PlatformCollectors } from '../collector.ts';
import type { Finding } from '../finding.ts';
import { judgeWindowsAntivirus } from './antivirus.ts';
import { judgeBitLocker } from './disk-encryption.ts';
import { judgeWindowsFirewall } from './firewall.ts';
import { readReport, type WindowsReport } from './report.ts';
import { judgeWindowsScreenLock } from './screen-lock.ts';
import { stateScript, systemScript } from './script.ts';
import {
  judgeWindowsPatched,
  judgeWindowsPhysical,
  judgeWindowsSecureBoot,
  readWindowsVersion,
} from './system.ts';

const powershell = ['C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe'];

/** To start it cold takes seconds. */
const timeoutMs = 6_000;

/** PowerShell costs much. */
const quickly = { on: 20_000, off: 0 };
const slowly = { on: 60_000, off: 30_000 };

/** How each fact is found out on Windows. */
export const windowsCollectors: PlatformCollectors = {
  osVersion: async (collection) => readWindowsVersion(await systemReport(collection)),
  checks: [
    { check: 'disk_encryption', find: bySystem(judgeBitLocker), keptForMs: slowly },
    { check: 'firewall', find: byState(judgeWindowsFirewall), keptForMs: quickly },
    { check: 'screen_lock', find: byState(judgeWindowsScreenLock), keptForMs: quickly },
    { check: 'antivirus', find: byState(judgeWindowsAntivirus), keptForMs: quickly },
    { check: 'secure_boot', find: bySystem(judgeWindowsSecureBoot), keptForMs: always },
    { check: 'patched', find: bySystem(judgeWindowsPatched), keptForMs: slowly },
    { check: 'physical', find: bySystem(judgeWindowsPhysical), keptForMs: always },
  ],
};

type Judge = (report: WindowsReport | undefined) => Finding;

function byState(judge: Judge): (collection: Collection) => Promise<Finding> {
  return async (collection) =>
    judge(await collection.once('state', () => askPowerShell(collection, stateScript)));
}

function bySystem(judge: Judge): (collection: Collection) => Promise<Finding> {
  return async (collection) => judge(await systemReport(collection));
}

function systemReport(collection: Collection): Promise<WindowsReport | undefined> {
  return collection.once('system', () => askPowerShell(collection, systemScript));
}

async function askPowerShell(
  { machine, signal }: Collection,
  script: string,
): Promise<WindowsReport | undefined> {
  const args = ['-NoLogo', '-NoProfile', '-NonInteractive', '-Command', script];
  return readReport(await machine.run(powershell, args, { timeoutMs, signal }));
}
