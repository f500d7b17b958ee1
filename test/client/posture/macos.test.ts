import test from 'ava';
import { parseFileVault } from '../../../client/posture/macos/disk-encryption.ts';
import { parseMacFirewall } from '../../../client/posture/macos/firewall.ts';
import { parseMacScreenLock } from '../../../client/posture/macos/screen-lock.ts';
import { judgeMacSecureBoot } from '../../../client/posture/macos/secure-boot.ts';
import {
  parseHypervisor,
  parseSoftwareUpdate,
  parseSwVers,
} from '../../../client/posture/macos/system.ts';
import { missing, said } from './answers.ts';
import { updatedAtMs } from './parsers.ts';

test('disk encryption - is FileVault that is on and done', (t) => {
  const judge = (text: string) => parseFileVault(said(text)).result;
  t.is(judge('FileVault is On.\n'), 'on');
  t.is(judge('FileVault is Off.\n'), 'off');
  t.is(judge('FileVault is On.\nEncryption in progress: Percent completed = 42.10\n'), 'off');
  t.is(judge('FileVault is On.\nDecryption in progress: Percent completed = 1\n'), 'off');
  t.is(
    judge("FileVault is Off.\nDeferred enablement appears to be active for user 'ada'.\n"),
    'off',
  );
  t.is(judge('FileVault master keychain appears to be installed.\n'), 'unknown');
});

test('firewall - goes by socketfilterfw, then by what defaults keeps', (t) => {
  const filter = (text: string) => parseMacFirewall(said(text), missing).result;
  t.is(filter('Firewall is enabled. (State = 1)\n'), 'on');
  t.is(filter('Firewall is blocking all non-essential incoming connections. (State = 2) \n'), 'on');
  t.is(filter('Firewall is disabled. (State = 0)\n'), 'off');
  t.is(filter('Firewall is enabled. (State = 7)\n'), 'unknown');
  t.is(parseMacFirewall(missing, said('2\n')).result, 'on');
  t.is(parseMacFirewall(missing, said('0\n')).result, 'off');
  t.is(
    parseMacFirewall(
      missing,
      said('', 1, 'The domain/default pair of (com.apple.alf, globalstate) does not exist'),
    ).result,
    'unknown',
  );
});

test('screen lock - needs a password soon, and a screen that goes off by itself', (t) => {
  const prefix = '2026-05-01 10:00:00.000 sysadminctl[512:9001] ';
  const judge = (
    status: string,
    idle = said('300\n'),
    pmset = missing as ReturnType<typeof said>,
  ) => parseMacScreenLock(said('', 0, `${prefix}${status}\n`), idle, pmset).result;
  const none = said('', 1, 'does not exist');
  const sleeping = (minutes: number) =>
    said(
      `System-wide power settings:\nCurrently in use:\n displaysleep         ${minutes} (sleep prevented by x)\n`,
    );
  t.is(judge('screenLock delay is immediate'), 'on');
  t.is(judge('screenLock delay is 5 seconds'), 'on');
  t.is(judge('screenLock delay is 300.000000 seconds'), 'on');
  t.is(judge('screenLock delay is 900 seconds'), 'off');
  t.is(judge('screenLock delay is -1.000000 seconds'), 'off');
  t.is(judge('screenLock is off'), 'off');
  t.is(judge('screenLock ist aus'), 'unknown');
  t.is(judge('screenLock delay is immediate', said('0\n')), 'off');
  t.is(judge('screenLock delay is immediate', said('3600\n')), 'off');
  t.is(judge('screenLock delay is immediate', none, sleeping(10)), 'on');
  t.is(judge('screenLock delay is immediate', none, sleeping(0)), 'off');
  t.is(judge('screenLock delay is immediate', said('0\n'), sleeping(15)), 'on');
  t.is(judge('screenLock delay is immediate', none), 'unknown');
});

test('secure boot - is full security with System Integrity Protection', (t) => {
  const enabled = said('System Integrity Protection status: enabled.\n');
  const disabled = said('System Integrity Protection status: disabled.\n');
  const nvram = (value: string) =>
    said(`94b73556-2197-4702-82a8-3e1337dafbfb:AppleSecureBootPolicy\t${value}\n`);
  const t2 = (value: string, csrutil = enabled) =>
    judgeMacSecureBoot({ csrutil, nvram: nvram(value), profiler: undefined }).result;
  t.is(t2('%02'), 'on');
  t.is(t2('%01'), 'off');
  t.is(t2('%00'), 'off');
  t.is(t2('%03'), 'unknown');
  t.is(t2('%02', disabled), 'off');
  t.is(t2('%02', missing as ReturnType<typeof said>), 'unknown');
  const silicon = (words: string) =>
    judgeMacSecureBoot({
      csrutil: enabled,
      nvram: said('', 1),
      profiler: said(`      Boot Policy:\n        Secure Boot: ${words}\n`),
    }).result;
  t.is(silicon('Full Security'), 'on');
  t.is(silicon('Reduced Security'), 'off');
  t.is(silicon('Permissive Security'), 'off');
  t.is(silicon('Volle Sicherheit'), 'unknown');
});

test('physical - is what the kernel says of a hypervisor', (t) => {
  t.is(parseHypervisor(said('0\n')).result, 'on');
  t.is(parseHypervisor(said('1\n')).result, 'off');
  t.is(parseHypervisor(said('', 1, "unknown oid 'kern.hv_vmm_present'")).result, 'unknown');
});

test('patched - needs updates that were looked for lately, and none that waits', (t) => {
  const judge = (waiting: string, date = '2026-05-01 10:11:12 +0000', days = 1) =>
    parseSoftwareUpdate(
      said(
        `{\n    LastRecommendedUpdatesAvailable = ${waiting};\n    LastSuccessfulDate = "${date}";\n}\n`,
      ),
      updatedAtMs + days * 86_400_000,
    ).result;
  t.is(judge('0'), 'on');
  t.is(judge('2'), 'off');
  t.is(judge('"-1"'), 'unknown');
  t.is(judge('0', 'yesterday'), 'unknown');
  t.is(judge('0', undefined, 30), 'off');
  t.is(judge('0', undefined, -30), 'unknown');
});

test('os version - is that of sw_vers', (t) => {
  t.is(parseSwVers(said('14.5\n')), '14.5');
  t.is(parseSwVers(said('26.0.1\n')), '26.0.1');
  t.is(parseSwVers(said('14.5 beta\n')), '');
  t.is(parseSwVers(missing), '');
});
