import test from 'ava';
import { judgeWindowsAntivirus } from '../../../client/posture/windows/antivirus.ts';
import { judgeBitLocker } from '../../../client/posture/windows/disk-encryption.ts';
import { judgeWindowsFirewall } from '../../../client/posture/windows/firewall.ts';
import { parseReg } from '../../../client/posture/windows/registry.ts';
import { readReport } from '../../../client/posture/windows/report.ts';
import { judgeWindowsScreenLock } from '../../../client/posture/windows/screen-lock.ts';
import { stateScript, systemScript } from '../../../client/posture/windows/script.ts';
import {
  judgeWindowsPatched,
  judgeWindowsPhysical,
  judgeWindowsSecureBoot,
  readWindowsVersion,
} from '../../../client/posture/windows/system.ts';
import { said } from './answers.ts';

test('disk encryption - is BitLocker that is on and done', (t) => {
  for (const [protection, result] of [
    [1, 'on'],
    [2, 'off'],
    [3, 'off'],
    [4, 'off'],
    [5, 'off'],
    [0, 'unknown'],
    [6, 'unknown'],
    [null, 'unknown'],
  ] as const) {
    t.is(judgeBitLocker({ shellProtection: protection }).result, result, String(protection));
  }
  t.is(judgeBitLocker({ bitlocker: { protection: 1, volume: 1 } }).result, 'on');
  t.is(judgeBitLocker({ bitlocker: { protection: 0, volume: 1 } }).result, 'off');
  t.is(judgeBitLocker({ bitlocker: { protection: 1, volume: 2 } }).result, 'off');
  t.is(judgeBitLocker({ bitlocker: { protection: 2, volume: 1 } }).result, 'unknown');
  t.is(judgeBitLocker(undefined).result, 'unknown');
});

test('firewall - is on when it is for every kind of network', (t) => {
  const profiles = (...enabled: number[]) => ({
    firewall: enabled.map((each, i) => ({
      name: ['Domain', 'Private', 'Public'][i],
      enabled: each,
    })),
  });
  t.is(judgeWindowsFirewall(profiles(1, 1, 1)).result, 'on');
  t.is(judgeWindowsFirewall(profiles(1, 1, 0)).result, 'off');
  t.is(judgeWindowsFirewall(profiles(1, 1, 2)).result, 'unknown');
  t.is(judgeWindowsFirewall(profiles(1, 1)).result, 'unknown');
  t.is(judgeWindowsFirewall(profiles(1, 0)).result, 'off');
  const product = (state: number) => ({
    ...profiles(0, 0, 0),
    firewallProducts: [{ name: 'X', state }],
  });
  t.is(judgeWindowsFirewall(product(0x41010)).result, 'on');
  t.is(judgeWindowsFirewall(product(0x40010)).result, 'off');
});

test('antivirus - is one that is on and current, by the bits of its state', (t) => {
  const judge = (...states: number[]) =>
    judgeWindowsAntivirus({ antivirusProducts: states.map((state) => ({ name: 'X', state })) })
      .result;
  t.is(judge(0x61100), 'on');
  t.is(judge(0x61110), 'off', 'out of date');
  t.is(judge(0x60100), 'off', 'turned off');
  t.is(judge(0x62100), 'off', 'snoozed');
  t.is(judge(0x60100, 0x41000), 'on');
  t.is(judge(), 'unknown');
  const defender = (isWatching: boolean, signatureDays: number) =>
    judgeWindowsAntivirus({
      antivirusProducts: [],
      defender: { isRunning: true, isWatching, signatureDays },
    }).result;
  t.is(defender(true, 0), 'on');
  t.is(defender(false, 0), 'off');
  t.is(defender(true, 30), 'off');
  t.is(defender(true, -1), 'off');
});

test('screen lock - is a policy of inactivity, or a screen saver that asks for a password', (t) => {
  const judge = (lock: Record<string, unknown>) =>
    judgeWindowsScreenLock({ lock: { inactivitySeconds: null, ...lock } }).result;
  const saver = {
    userScreenSaveActive: '1',
    userScreenSaverIsSecure: '1',
    userScreenSaveTimeOut: '600',
    userSCRNSAVEEXE: 'C:\\Windows\\system32\\scrnsave.scr',
  };
  t.is(judge({ inactivitySeconds: 900 }), 'on');
  t.is(judge({ inactivitySeconds: 0 }), 'off');
  t.is(judge({ inactivitySeconds: 3_600 }), 'off');
  t.is(judge(saver), 'on');
  t.is(judge({ ...saver, userScreenSaverIsSecure: '0' }), 'off');
  t.is(judge({ ...saver, userSCRNSAVEEXE: null }), 'off');
  t.is(judge({ ...saver, userScreenSaveTimeOut: '3600' }), 'off');
  t.is(judge({ ...saver, policyScreenSaverIsSecure: '0' }), 'off', 'a policy overrides the user');
  t.is(judge({ ...saver, userScreenSaverIsSecure: '0', policyScreenSaverIsSecure: '1' }), 'on');
  t.is(judge({}), 'off');
  t.is(judgeWindowsScreenLock({ lock: {} }).result, 'unknown');
  t.is(judgeWindowsScreenLock({ lock: [] }).result, 'unknown');
});

test('secure boot - is what the firmware says, else what Windows noted', (t) => {
  t.is(judgeWindowsSecureBoot({ secureBoot: false, secureBootState: 1 }).result, 'off');
  t.is(judgeWindowsSecureBoot({ secureBoot: true }).result, 'on');
  t.is(judgeWindowsSecureBoot({ secureBootState: 0 }).result, 'off');
  t.is(judgeWindowsSecureBoot({ secureBootState: '1' }).result, 'unknown');
});

test('patched - needs an update of late and none that waits for a restart', (t) => {
  const judge = (isRestartNeeded: unknown, updatedDaysAgo: unknown) =>
    judgeWindowsPatched({ isRestartNeeded, updatedDaysAgo }).result;
  t.is(judge(false, 45), 'on');
  t.is(judge(false, 46), 'off');
  t.is(judge(true, 1), 'off');
  t.is(judge(false, null), 'unknown');
  t.is(judge(null, 1), 'unknown');
  t.is(judge(false, -400), 'unknown');
});

test('physical - is a machine that is not called like something virtual', (t) => {
  const judge = (manufacturer: string, model: string) =>
    judgeWindowsPhysical({ computer: { manufacturer, model } }).result;
  t.is(judge('LENOVO', '21HD'), 'on');
  t.is(judge('Microsoft Corporation', 'Surface Laptop 5'), 'on');
  for (const [manufacturer, model] of [
    ['Microsoft Corporation', 'Virtual Machine'],
    ['VMware, Inc.', 'VMware20,1'],
    ['innotek GmbH', 'VirtualBox'],
    ['QEMU', 'Standard PC (i440FX + PIIX, 1996)'],
    ['Xen', 'HVM domU'],
    ['Amazon EC2', 't3.large'],
  ] as const) {
    t.is(judge(manufacturer, model), 'off', model);
  }
  t.is(judge('', ''), 'unknown');
});

test('os version - has the revision as its fourth part', (t) => {
  t.is(readWindowsVersion({ os: { version: '10.0.22631', revision: 3737 } }), '10.0.22631.3737');
  t.is(readWindowsVersion({ os: { version: '10.0.22631', revision: 0 } }), '10.0.22631');
  t.is(readWindowsVersion({ os: { version: 'Windows 11', revision: 1 } }), '');
  t.is(readWindowsVersion(undefined), '');
});

test('readReport - takes an object that came whole, with or without a byte order mark', (t) => {
  t.deepEqual(readReport(said('\uFEFF{"a":1}\r\n')), { a: 1 });
  for (const text of ['[1]', '{"a":1', '"a"', 'null', '{"a":1}{"a":2}', '#< CLIXML']) {
    t.is(readReport(said(text)), undefined, text);
  }
});

test('scripts - are one argument without double quotes, and ask for nothing that writes', (t) => {
  for (const script of [stateScript, systemScript]) {
    t.notRegex(script, /["\n]/);
    t.notRegex(script, /\b(?:Set|New(?!-Object)|Remove|Enable|Disable|Invoke|Start|Stop|Out)-/);
    t.true(script.length < 8_000);
  }
});

const query = (line: string) => said(`\r\nHKEY_LOCAL_MACHINE\\SOFTWARE\\Corp\r\n${line}\r\n\r\n`);

test('registry - compares the data of a value, numbers by their value', (t) => {
  const text = query('    Owner    REG_SZ    ada  lovelace');
  t.is(parseReg(text, 'Owner', null).result, 'on');
  t.is(parseReg(text, 'owner', 'ada  lovelace').result, 'on');
  t.is(parseReg(text, 'Owner', 'ada').result, 'off');
  t.is(parseReg(text, 'Own', null).result, 'unknown');
  t.is(parseReg(query('    Level    REG_DWORD    0x10'), 'Level', '16').result, 'on');
  t.is(parseReg(query('    Level    REG_DWORD    0x10'), 'Level', '10').result, 'off');
  t.is(parseReg(query('    Empty    REG_SZ'), 'Empty', '').result, 'on');
  t.is(parseReg(query('    Owner    NOT_A_TYPE    x'), 'Owner', null).result, 'unknown');
});

test('registry - finds a key by itself, and says off for what is not there', (t) => {
  t.is(parseReg(query(''), null, null).result, 'on');
  t.is(parseReg(said('', 1, 'FEHLER: …'), null, null).result, 'off');
  t.is(parseReg(said('', 2), null, null).result, 'unknown');
  t.is(parseReg(said('nothing', 0), null, null).result, 'unknown');
});
