import test from 'ava';
import {
  parseDiskEncryption,
  wantedMounts,
  zfsSources,
} from '../../../client/posture/linux/disk-encryption.ts';
import {
  firewallUnits,
  judgeFirewall,
  refusesByDefault,
} from '../../../client/posture/linux/firewall.ts';
import { parseOsRelease } from '../../../client/posture/linux/os-release.ts';
import { judgePatched } from '../../../client/posture/linux/patched.ts';
import { parseDetectVirt } from '../../../client/posture/linux/physical.ts';
import { parseGnomeLock, parseKdeLock } from '../../../client/posture/linux/screen-lock.ts';
import { judgeSecureBoot } from '../../../client/posture/linux/secure-boot.ts';
import { holds, missing, noFile, said } from './answers.ts';
import { ext4Root, luksDisk } from './parsers.ts';

function disk(lsblk: string, mounts: string, zfs?: string): string {
  return parseDiskEncryption({
    lsblk: said(lsblk),
    mounts,
    homeDir: '/home/ada',
    zfs: zfs === undefined ? undefined : said(zfs),
  }).result;
}

const tree = (...devices: unknown[]): string => JSON.stringify({ blockdevices: devices });

test('disk encryption - is on where root lies on LUKS, also through LVM', (t) => {
  t.is(disk(luksDisk, ext4Root), 'on');
});

test('disk encryption - is off where root or the home directory is not on LUKS', (t) => {
  const plain = tree({
    type: 'disk',
    mountpoints: [null],
    children: [{ type: 'part', mountpoints: ['/run/netns', '/'], fstype: 'ext4' }],
  });
  t.is(disk(plain, ext4Root), 'off');
  const otherHome = tree(
    { type: 'disk', children: [{ type: 'crypt', mountpoints: ['/'] }] },
    { type: 'disk', mountpoints: ['/home'] },
  );
  t.is(disk(otherHome, `${ext4Root}/dev/sdb /home ext4 rw 0 0\n`), 'off');
  t.is(disk(otherHome, ext4Root), 'on');
});

test('disk encryption - of a mirror counts only where both halves are encrypted', (t) => {
  const half = (type: string) => ({
    type,
    children: [{ type: 'raid1', mountpoints: ['/'], fstype: 'ext4' }],
  });
  t.is(disk(tree(half('crypt'), half('crypt')), ext4Root), 'on');
  t.is(disk(tree(half('crypt'), half('part')), ext4Root), 'off');
  const btrfs = (type: string, mountpoints: (string | null)[]) => ({
    type,
    mountpoints,
    fstype: 'btrfs',
    uuid: 'u1',
  });
  const mounts = '/dev/mapper/a / btrfs rw 0 0\n';
  t.is(disk(tree(btrfs('crypt', ['/']), btrfs('crypt', [null])), mounts), 'on');
  t.is(disk(tree(btrfs('crypt', ['/']), btrfs('part', [null])), mounts), 'off');
});

test('disk encryption - understands an lsblk that knows one mount of each device', (t) => {
  const old = tree({ type: 'disk', children: [{ type: 'crypt', mountpoint: '/' }] });
  t.is(disk(old, ext4Root), 'on');
});

test('disk encryption - is unknown where the file system says nothing of devices', (t) => {
  t.is(disk(luksDisk, 'overlay / overlay rw 0 0\n'), 'on', 'lsblk knows better');
  const none = tree({ type: 'disk', mountpoints: [null] });
  t.is(disk(none, 'overlay / overlay rw 0 0\n'), 'unknown');
  t.is(disk(luksDisk, `${ext4Root}nas:/home /home nfs4 rw 0 0\n`), 'unknown');
  t.is(disk(luksDisk, ''), 'unknown');
  t.is(disk(luksDisk, '/dev/sda1 /boot ext4 rw 0 0\n'), 'unknown');
});

test('disk encryption - takes the word of ZFS, or of the devices below it', (t) => {
  const mounts = 'rpool/ROOT/ubuntu / zfs rw 0 0\nrpool/home /home zfs rw 0 0\n';
  const plain = tree({ type: 'part', fstype: 'zfs_member' });
  t.is(disk(plain, mounts, 'rpool/ROOT/ubuntu\taes-256-gcm\nrpool/home\taes-256-gcm\n'), 'on');
  t.is(disk(plain, mounts, 'rpool/ROOT/ubuntu\taes-256-gcm\nrpool/home\toff\n'), 'off');
  t.is(disk(plain, mounts, 'rpool/ROOT/ubuntu\taes-256-gcm\n'), 'unknown');
  t.is(disk(plain, mounts), 'unknown');
  const luks = tree({ type: 'crypt', fstype: 'zfs_member' });
  t.is(disk(luks, mounts, 'rpool/ROOT/ubuntu\toff\nrpool/home\toff\n'), 'on');
});

test('disk encryption - gives up on devices nested beyond reason', (t) => {
  let device: object = { type: 'crypt', mountpoints: ['/'] };
  for (let depth = 0; depth < 2_000; depth += 1) device = { type: 'dm', children: [device] };
  t.is(disk(tree(device), ext4Root), 'unknown');
});

test('wantedMounts - knows spaces, covered mounts, and what holds the home directory', (t) => {
  const mounts =
    '/dev/a / ext4 rw 0 0\n/dev/b /home ext4 rw 0 0\n/dev/c /home xfs rw 0 0\n/dev/d /home/a\\040b ext4 rw 0 0\n/dev/e /srv ext4 rw 0 0\n';
  const targets = wantedMounts(mounts, '/home/a b/deep')?.map((m) => `${m.source} ${m.target}`);
  t.deepEqual(targets, ['/dev/a /', '/dev/c /home', '/dev/d /home/a b']);
});

test('zfsSources - never lets a data set pass for an option', (t) => {
  const mount = (source: string) => ({ source, target: '/', fileSystem: 'zfs' });
  t.deepEqual(zfsSources([mount('rpool/ROOT'), mount('-p'), mount('a;b')]), ['rpool/ROOT']);
});

const units = (active: readonly string[]) =>
  said(firewallUnits.map((unit) => (active.includes(unit) ? 'active' : 'inactive')).join('\n'), 3);

test('firewall - is on with firewalld, or ufw that is both active and turned on', (t) => {
  t.is(judgeFirewall({ units: units(['firewalld']) }).result, 'on');
  const ufwConf = '# /etc/ufw/ufw.conf\nENABLED=yes\nLOGLEVEL=low\n';
  t.is(judgeFirewall({ units: units(['ufw']), ufwConf }).result, 'on');
  t.is(judgeFirewall({ units: units(['ufw']), ufwConf: 'ENABLED=no\n' }).result, 'off');
  t.is(judgeFirewall({ units: units(['ufw']) }).result, 'off');
  t.is(judgeFirewall({ units: units([]), ufwConf }).result, 'off');
  t.is(judgeFirewall({ units: units([]) }).result, 'off');
});

test('firewall - is off where ufw lets everything in', (t) => {
  const ufwDefaults = 'IPV6=yes\nDEFAULT_INPUT_POLICY="ACCEPT"\n';
  const ufwConf = 'ENABLED=yes';
  t.is(judgeFirewall({ units: units(['ufw']), ufwConf, ufwDefaults }).result, 'off');
  const ufwStatus = said('Status: active\n');
  t.is(judgeFirewall({ units: units(['ufw']), ufwStatus, ufwDefaults }).result, 'off');
});

test('firewall - of nftables goes by its rules, and is unknown where they cannot be read', (t) => {
  const nftables = units(['nftables']);
  const empty =
    'flush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n';
  const dropping = empty.replace('filter;', 'filter; policy drop;');
  t.is(judgeFirewall({ units: nftables }).result, 'unknown');
  t.is(judgeFirewall({ units: nftables, nftablesConf: dropping }).result, 'on');
  t.is(judgeFirewall({ units: nftables, nftablesConf: empty }).result, 'off');
  const including = `${empty}include "/etc/nftables.d/*.nft"\n`;
  t.is(judgeFirewall({ units: nftables, nftablesConf: including }).result, 'unknown');
  t.is(judgeFirewall({ units: units(['netfilter-persistent']) }).result, 'unknown');
});

test('refusesByDefault - sees what is refused altogether, not what is refused to some', (t) => {
  const chain = (body: string) => `table inet f {\n chain in {\n${body}\n }\n}\n`;
  const hook = 'type filter hook input priority 0; policy accept;\n';
  t.true(refusesByDefault(chain('type filter hook input priority 0; policy drop;')));
  t.true(
    refusesByDefault(
      'table inet f { chain in { type filter hook input priority 0; policy drop; } }',
    ),
  );
  t.true(
    refusesByDefault(
      chain(`${hook}ct state established accept\nreject with icmpx admin-prohibited`),
    ),
  );
  t.true(refusesByDefault(chain(`${hook}counter packets 3 bytes 180 drop`)));
  t.false(refusesByDefault(chain(`${hook}ip saddr @banned drop`)));
  t.false(refusesByDefault(chain(`${hook}tcp dport { 22, 80 } drop`)));
  t.false(refusesByDefault(chain(`${hook}# drop`)));
  t.false(refusesByDefault(chain('type filter hook forward priority 0; policy drop;')));
  t.false(refusesByDefault(chain('type filter hook output priority 0; policy drop;')));
  t.false(refusesByDefault(`${chain(hook)}table ip g {\n chain other {\n drop\n }\n}`));
  t.false(refusesByDefault(''));
});

const screensaver = (lock: string, delay = 'uint32 0') =>
  said(
    `org.gnome.desktop.screensaver lock-delay ${delay}\norg.gnome.desktop.screensaver lock-enabled ${lock}\n`,
  );

test('screen lock - of GNOME is on when it locks within a quarter of an hour', (t) => {
  const lock = (saver: ReturnType<typeof said>, idle: string) =>
    parseGnomeLock(saver, said(idle)).result;
  t.is(lock(screensaver('true'), 'uint32 900\n'), 'on');
  t.is(lock(screensaver('true', 'uint32 30'), 'uint32 900\n'), 'off');
  t.is(lock(screensaver('true'), 'uint32 0\n'), 'off');
  t.is(lock(screensaver('false'), 'uint32 300\n'), 'off');
  t.is(lock(screensaver('@as []'), 'uint32 300\n'), 'unknown');
  t.is(lock(said('No such schema', 1), 'uint32 300\n'), 'unknown');
});

test('screen lock - of GNOME is unknown where gsettings knows no more than its own defaults', (t) => {
  const warning =
    "(process:1): GLib-GIO-WARNING **: Using the 'memory' GSettings backend. Your settings will not be saved";
  const saver = {
    exitCode: 0,
    stdout:
      'org.gnome.desktop.screensaver lock-enabled true\norg.gnome.desktop.screensaver lock-delay uint32 0\n',
    stderr: warning,
  };
  t.is(parseGnomeLock(saver, said('uint32 300\n')).result, 'unknown');
  t.is(parseGnomeLock(screensaver('true'), said('uint32 300\n', 0, warning)).result, 'unknown');
});

test('screen lock - of KDE goes by the user, then the system, then what KDE does by itself', (t) => {
  t.is(parseKdeLock(undefined, undefined).result, 'on');
  t.is(parseKdeLock('[Daemon]\nAutolock=false\n', undefined).result, 'off');
  t.is(parseKdeLock('[Daemon]\nTimeout=10\nLockGrace=60\n', undefined).result, 'on');
  t.is(parseKdeLock('[Daemon]\nTimeout=60\n', undefined).result, 'off');
  t.is(parseKdeLock('[Daemon]\nTimeout=0\n', undefined).result, 'off');
  t.is(parseKdeLock(undefined, '[Daemon]\nAutolock[$i]=false\n').result, 'off');
  t.is(parseKdeLock('[Daemon]\nAutolock=true\n', '[Daemon]\nAutolock=false\n').result, 'on');
  t.is(parseKdeLock('[Greeter]\nAutolock=false\n', undefined).result, 'on');
  t.is(parseKdeLock('[Daemon]\nAutolock=vrai\n', undefined).result, 'unknown');
  t.is(parseKdeLock('[Daemon]\nTimeout=1e3\n', undefined).result, 'unknown');
});

const variable = (value: number) => holds([6, 0, 0, 0, value]);

test('secure boot - goes by the last byte of the variable, and by the shim', (t) => {
  const judge = (secureBoot: ReturnType<typeof holds>, shimState = noFile, hasFirmware = true) =>
    judgeSecureBoot({ hasFirmware, secureBoot, shimState }).result;
  t.is(judge(variable(1)), 'on');
  t.is(judge(variable(0)), 'off');
  t.is(judge(variable(1), variable(1)), 'off');
  t.is(judge(variable(2)), 'unknown');
  t.is(judge(holds([1])), 'unknown');
  t.is(judge(holds([6, 0, 0, 0, 1, 1])), 'unknown');
  t.is(judge(holds('')), 'unknown');
  t.is(judge({ failure: 'unreadable' }), 'unknown');
  t.is(judge(variable(1), noFile, false), 'off');
});

test('secure boot - asks mokutil where the variable cannot be read', (t) => {
  const judge = (text: string) =>
    judgeSecureBoot({
      hasFirmware: true,
      secureBoot: noFile,
      shimState: noFile,
      mokutil: said(text),
    }).result;
  t.is(judge('SecureBoot enabled\n'), 'on');
  t.is(judge('SecureBoot disabled\nPlatform is in Setup Mode\n'), 'off');
  t.is(judge('SecureBoot enabled\nSecureBoot validation is disabled in shim\n'), 'off');
  t.is(judge('EFI variables are not supported on this system\n'), 'unknown');
});

test('patched - needs updates that ran lately, and none that waits', (t) => {
  const nowMs = Date.parse('2026-05-10T00:00:00Z');
  const daysAgo = (days: number) => nowMs - days * 86_400_000;
  const judge = (unattendedAtMs?: number, updatesAvailable?: string, isRebootRequired?: boolean) =>
    judgePatched({
      nowMs,
      unattendedAtMs,
      updatesAvailable,
      isRebootRequired: isRebootRequired ?? false,
    }).result;
  t.is(judge(daysAgo(1)), 'on');
  t.is(judge(daysAgo(8.5)), 'off');
  t.is(judge(undefined), 'unknown');
  t.is(judge(daysAgo(-30)), 'unknown');
  t.is(judge(daysAgo(1), undefined, true), 'off');
  const waiting =
    '\n5 updates can be applied immediately.\n2 of these updates are standard security updates.\nTo see these additional updates run: apt list --upgradable\n';
  t.is(judge(daysAgo(1), waiting), 'off');
  t.is(
    judge(
      daysAgo(1),
      waiting.replace(
        '2 of these updates are standard security updates',
        '1 of these updates is a standard security update',
      ),
    ),
    'off',
  );
  t.is(judge(daysAgo(1), '\n0 updates can be applied immediately.\n\n'), 'on');
  t.is(judge(daysAgo(1), '\n3 updates can be applied immediately.\n'), 'on');
  t.is(judge(daysAgo(1), '5 Aktualisierungen können sofort angewendet werden.\n'), 'unknown');
  t.is(
    judgePatched({
      nowMs,
      unattendedAtMs: nowMs,
      updatesAvailable: '',
      isRebootRequired: undefined,
    }).result,
    'unknown',
  );
});

test('physical - goes by systemd-detect-virt, and never by a name alone', (t) => {
  const judge = (text: string, exitCode: number, vendor = 'LENOVO', product = '20XW') =>
    parseDetectVirt(said(text, exitCode), vendor, product).result;
  t.is(judge('none\n', 1), 'on');
  for (const kind of ['kvm', 'docker', 'vm-other', 'wsl']) t.is(judge(`${kind}\n`, 0), 'off');
  t.is(judge('none\n', 0), 'unknown');
  t.is(parseDetectVirt(missing, 'LENOVO', '20XW').result, 'unknown');
  t.is(parseDetectVirt(missing, 'QEMU', 'Standard PC (Q35 + ICH9, 2009)').result, 'off');
  t.is(parseDetectVirt(missing, 'innotek GmbH', 'VirtualBox').result, 'off');
});

test('os version - is the one of os-release, quoted or not', (t) => {
  t.is(parseOsRelease('NAME="Ubuntu"\nVERSION_ID="24.04"\n'), '24.04');
  t.is(parseOsRelease("ID=debian\nVERSION_ID='12'\n"), '12');
  t.is(parseOsRelease('ID=fedora\nVERSION_ID=40\n'), '40');
  t.is(parseOsRelease('ID=arch\n'), '');
  t.is(parseOsRelease('VERSION_ID="$(reboot)"\n'), '');
  t.is(parseOsRelease(undefined), '');
});
