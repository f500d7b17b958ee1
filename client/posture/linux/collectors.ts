import { findAntivirus } from '../antivirus.ts';
import { always, type Collection, type PlatformCollectors } from '../collector.ts';
import { unknown, type Finding } from '../finding.ts';
import { isRunning } from '../process-list.ts';
import { isMissing, textOf } from '../read-file.ts';
import { parseDiskEncryption, wantedMounts, zfsSources } from './disk-encryption.ts';
import { firewallUnits, judgeFirewall } from './firewall.ts';
import { parseOsRelease } from './os-release.ts';
import { judgePatched } from './patched.ts';
import { parseDetectVirt } from './physical.ts';
import { parseGnomeLock, parseKdeLock } from './screen-lock.ts';
import { judgeSecureBoot } from './secure-boot.ts';
import { stat } from 'node:fs/promises';

const bin = (name: string): string[] => [`/usr/bin/${name}`, `/bin/${name}`];
const sbin = (name: string): string[] => [`/usr/sbin/${name}`, `/sbin/${name}`];

const efivars = '/sys/firmware/efi/efivars';
const unattendedStamp = '/var/lib/apt/periodic/unattended-upgrades-stamp';

/** How each fact is found out on Linux. */
export const linuxCollectors: PlatformCollectors = {
  osVersion: async ({ machine }) => {
    const text = textOf(await machine.read('/etc/os-release'));
    return parseOsRelease(text ?? textOf(await machine.read('/usr/lib/os-release')));
  },
  checks: [
    { check: 'disk_encryption', find: findDiskEncryption, keptForMs: { on: 60_000, off: 0 } },
    { check: 'firewall', find: findFirewall },
    { check: 'screen_lock', find: findScreenLock },
    {
      check: 'antivirus',
      find: async ({ machine, processes }) => findAntivirus(await processes(), machine.uid),
    },
    { check: 'secure_boot', find: findSecureBoot, keptForMs: always },
    { check: 'patched', find: findPatched },
    { check: 'physical', find: findPhysical, keptForMs: always },
  ],
};

async function findDiskEncryption({ machine, signal }: Collection): Promise<Finding> {
  const { homeDir } = machine;
  const listed = (column: string) =>
    machine.run(bin('lsblk'), ['-J', '-o', `NAME,TYPE,${column},FSTYPE,UUID`], { signal });
  let lsblk = await listed('MOUNTPOINTS');
  // Before 2.37 it knew one mount of each device.
  if (!('failure' in lsblk) && lsblk.exitCode !== 0) lsblk = await listed('MOUNTPOINT');
  const mounts = textOf(await machine.read('/proc/self/mounts'));
  const sources = zfsSources(wantedMounts(mounts ?? '', homeDir) ?? []);
  const zfs =
    sources.length === 0
      ? undefined
      : await machine.run(
          [...sbin('zfs'), ...bin('zfs')],
          ['get', '-H', '-o', 'name,value', 'encryption', ...sources],
          { signal },
        );
  return parseDiskEncryption({ lsblk, mounts, homeDir, zfs });
}

async function findFirewall({ machine, signal }: Collection): Promise<Finding> {
  const isRoot = machine.uid === 0;
  const [units, ruleset, ufwConf, ufwDefaults, nftablesConf] = await Promise.all([
    machine.run(bin('systemctl'), ['is-active', ...firewallUnits], { signal }),
    isRoot ? machine.run(sbin('nft'), ['list', 'ruleset'], { signal }) : undefined,
    machine.read('/etc/ufw/ufw.conf'),
    machine.read('/etc/default/ufw'),
    machine.read('/etc/nftables.conf'),
  ]);
  const evidence = {
    units,
    ruleset,
    ufwConf: textOf(ufwConf),
    ufwDefaults: textOf(ufwDefaults),
    nftablesConf: textOf(nftablesConf),
  };
  const finding = judgeFirewall(evidence);
  // Both are Python programs, too slow to be asked where the answer is known.
  if (finding.result === 'on') return finding;
  const ufwStatus = isRoot ? await machine.run(sbin('ufw'), ['status'], { signal }) : undefined;
  const firewalld = await machine.run(bin('firewall-cmd'), ['--state'], { signal });
  return judgeFirewall({ ...evidence, ufwStatus, firewalld });
}

async function findScreenLock(collection: Collection): Promise<Finding> {
  const { machine, signal } = collection;
  // Settings of a desktop that does not run say nothing, and neither does that of another user.
  const own = (await collection.processes())?.filter(({ uid }) => uid === machine.uid);
  if (!own) return unknown('the running processes cannot be seen');
  if (isRunning(own, 'gnome-shell', 'linux')) {
    const gsettings = (...args: string[]) => machine.run(bin('gsettings'), args, { signal });
    const [screensaver, idleDelay] = await Promise.all([
      gsettings('list-recursively', 'org.gnome.desktop.screensaver'),
      gsettings('get', 'org.gnome.desktop.session', 'idle-delay'),
    ]);
    return parseGnomeLock(screensaver, idleDelay);
  }
  if (isRunning(own, 'plasmashell', 'linux')) {
    const [user, system] = await Promise.all([
      machine.read(`${machine.homeDir}/.config/kscreenlockerrc`),
      machine.read('/etc/xdg/kscreenlockerrc'),
    ]);
    const isBroken = [user, system].some((file) => 'failure' in file && file.failure !== 'missing');
    if (isBroken) return unknown('kscreenlockerrc could not be read');
    return parseKdeLock(textOf(user), textOf(system));
  }
  return unknown('no desktop whose lock is known runs (GNOME, KDE)');
}

async function findSecureBoot({ machine, signal }: Collection): Promise<Finding> {
  const [isThere, secureBoot, shimState] = await Promise.all([
    exists(machine.locate('/sys/firmware/efi')),
    machine.read(`${efivars}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c`),
    machine.read(`${efivars}/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23`),
  ]);
  const mokutil =
    isThere === true && 'failure' in secureBoot
      ? await machine.run(bin('mokutil'), ['--sb-state'], { signal })
      : undefined;
  return judgeSecureBoot({ hasFirmware: isThere !== false, secureBoot, shimState, mokutil });
}

async function findPatched({ machine, nowMs }: Collection): Promise<Finding> {
  const [isRebootRequired, stamp, updates] = await Promise.all([
    exists(machine.locate('/run/reboot-required')),
    machine.read(unattendedStamp),
    machine.read('/var/lib/update-notifier/updates-available'),
  ]);
  return judgePatched({
    nowMs,
    isRebootRequired,
    unattendedAtMs: 'failure' in stamp ? undefined : stamp.modifiedAtMs,
    updatesAvailable: textOf(updates),
  });
}

async function findPhysical({ machine, signal }: Collection): Promise<Finding> {
  const [virt, vendor, product] = await Promise.all([
    machine.run(bin('systemd-detect-virt'), [], { signal }),
    machine.read('/sys/class/dmi/id/sys_vendor'),
    machine.read('/sys/class/dmi/id/product_name'),
  ]);
  return parseDetectVirt(virt, textOf(vendor)?.trim() ?? '', textOf(product)?.trim() ?? '');
}

/** Whether there is something of that name; undefined when that cannot be seen. */
async function exists(path: string): Promise<boolean | undefined> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    return isMissing(error) ? false : undefined;
  }
}
