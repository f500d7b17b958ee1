import test from 'ava';
import { checkFix, checkOfCondition, checkTitle } from '../../../client/posture/advice.ts';
import { linuxCollectors } from '../../../client/posture/linux/collectors.ts';
import { macCollectors } from '../../../client/posture/macos/collectors.ts';
import { windowsCollectors } from '../../../client/posture/windows/collectors.ts';
import { builtInChecks } from '../../../protocol/index.ts';

const platforms = ['linux', 'darwin', 'win32', 'other'] as const;

test('collectors - find out on every platform what policies read', (t) => {
  for (const { checks } of [linuxCollectors, macCollectors, windowsCollectors]) {
    t.deepEqual(checks.map(({ check }) => check).sort(), [...builtInChecks].sort());
  }
});

test('advice - has a name and a fix for every check on every platform', (t) => {
  for (const check of builtInChecks) {
    t.notRegex(checkTitle(check), /_/);
    for (const platform of platforms) {
      const fix = checkFix(check, platform);
      t.notRegex(fix, /administrator how to meet/);
      t.notRegex(fix, /\.$|\n/);
    }
  }
  t.regex(checkFix('disk_encryption', 'darwin'), /FileVault/);
  t.regex(checkFix('disk_encryption', 'linux'), /LUKS/);
  t.regex(checkFix('disk_encryption', 'win32'), /BitLocker/);
  t.regex(checkFix('firewall', 'linux'), /ufw enable/);
});

test('advice - sends people to their administrator for checks of the deployment', (t) => {
  for (const check of ['corp_file', 'constructor']) {
    t.is(checkTitle(check), check);
    t.is(checkFix(check, 'linux'), `ask your administrator how to meet the check ${check}`);
  }
});

test('checkOfCondition - finds the check that a condition is about', (t) => {
  t.is(checkOfCondition('posture.firewall'), 'firewall');
  t.is(checkOfCondition('posture.os_version_number'), 'os_version_number');
  t.is(checkOfCondition('authentication.mfa'), undefined);
  t.is(checkOfCondition('posture.__proto__'), undefined);
});
