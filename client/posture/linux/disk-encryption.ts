import { off, on, unknown, type Finding } from '../finding.ts';
import { describeFailure, linesOf, type ToolAnswer } from '../run-tool.ts';

/** A device of `lsblk`, and whether all that it is made of lies on dm-crypt. */
interface BlockDevice {
  readonly mountPoints: readonly string[];
  readonly isEncrypted: boolean;
  readonly fileSystem: string | undefined;
  readonly uuid: string | undefined;
}

/** A line of /proc/self/mounts. */
export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly fileSystem: string;
}

/** Devices on devices, no more than this deep. */
const maxDepth = 32;

/**
 * Whether the system and the user's files lie on encrypted devices: those mounted at /, /home and above the home directory.
 * `lsblk` is asked with -J for NAME,TYPE,MOUNTPOINTS (or MOUNTPOINT),FSTYPE,UUID, `zfs` for what `encryption` is, as
 * `value` lines, in the order of `zfsSources`.
 */
export function parseDiskEncryption(evidence: {
  readonly lsblk: ToolAnswer;
  readonly mounts: string | undefined;
  readonly homeDir: string;
  readonly zfs: ToolAnswer | undefined;
}): Finding {
  const { lsblk, mounts, homeDir, zfs } = evidence;
  if ('failure' in lsblk) return unknown(describeFailure('lsblk', lsblk));
  const devices = lsblk.exitCode === 0 ? readDevices(lsblk.stdout) : undefined;
  if (!devices) return unknown('lsblk was not understood');
  const wanted = mounts === undefined ? undefined : wantedMounts(mounts, homeDir);
  if (!wanted) return unknown('the mounts were not understood');
  const zfsValues = readZfs(zfs, zfsSources(wanted).length);
  const findings = wanted.map((mount) =>
    mount.fileSystem === 'zfs'
      ? judgeZfs(mount, zfsValues?.get(mount.source), devices)
      : judgeMount(mount, devices),
  );
  const worst =
    findings.find(({ result }) => result === 'off') ??
    findings.find(({ result }) => result === 'unknown');
  return worst ?? on(findings.map(({ how }) => how).join(', '));
}

/** The data sets among these mounts that `zfs` is to be asked about. */
export function zfsSources(mounts: readonly Mount[]): string[] {
  return mounts
    .filter(({ fileSystem, source }) => fileSystem === 'zfs' && /^[A-Za-z][\w.:/-]*$/.test(source))
    .map(({ source }) => source);
}

/** The mounts that hold the system and the user's files; undefined when / is not among them. */
export function wantedMounts(mounts: string, homeDir: string): Mount[] | undefined {
  const byTarget = new Map<string, Mount>();
  for (const line of linesOf(mounts)) {
    const [source = '', target = '', fileSystem = ''] = line.split(' ').map(unescapeOctal);
    const isWanted =
      ['/', '/home', '/var/home', homeDir].includes(target) || homeDir.startsWith(`${target}/`);
    if (isWanted && fileSystem !== 'rootfs') byTarget.set(target, { source, target, fileSystem }); // the last one covers
  }
  return byTarget.has('/') ? [...byTarget.values()] : undefined;
}

const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-3][0-7]{2})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );

function judgeMount({ target, fileSystem }: Mount, devices: readonly BlockDevice[]): Finding {
  const under = devices.filter(({ mountPoints }) => mountPoints.includes(target));
  if (under.length === 0) return unknown(`${target} is on ${fileSystem}, which cannot be judged`);
  // A file system over several devices is mounted from one of them.
  const uuids = new Set(under.map(({ uuid }) => uuid).filter((uuid) => uuid !== undefined));
  const all = devices.filter(
    (device) =>
      under.includes(device) ||
      (device.fileSystem === 'btrfs' && device.uuid !== undefined && uuids.has(device.uuid)),
  );
  return all.every(({ isEncrypted }) => isEncrypted)
    ? on(`${target} is on dm-crypt`)
    : off(`${target} is not on dm-crypt`);
}

function judgeZfs(
  { target }: Mount,
  encryption: string | undefined,
  devices: readonly BlockDevice[],
): Finding {
  if (encryption !== undefined && /^aes-\d{3}-[cg]cm$/.test(encryption))
    return on(`${target} is ZFS with ${encryption}`);
  const members = devices.filter(({ fileSystem }) => fileSystem === 'zfs_member');
  if (members.length > 0 && members.every(({ isEncrypted }) => isEncrypted))
    return on(`${target} is ZFS on dm-crypt`);
  return encryption === 'off'
    ? off(`${target} is ZFS without encryption`)
    : unknown(`${target} is ZFS, which cannot be judged`);
}

/** What `zfs get -H -o name,value encryption …` says. */
function readZfs(answer: ToolAnswer | undefined, count: number): Map<string, string> | undefined {
  if (!answer || 'failure' in answer || answer.exitCode !== 0) return undefined;
  const rows = linesOf(answer.stdout).map((line) => line.split('\t'));
  if (rows.length !== count || rows.some((row) => row.length !== 2)) return undefined;
  return new Map(rows.map(([name = '', value = '']) => [name, value]));
}

function readDevices(text: string): BlockDevice[] | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  const found: BlockDevice[] = [];
  const top = isRecord(parsed) ? parsed['blockdevices'] : undefined;
  return collect(top, false, 0, found) && found.length > 0 ? found : undefined;
}

/** Adds these devices and what lies on them; false when they are not what `lsblk` prints. */
function collect(value: unknown, isAbove: boolean, depth: number, found: BlockDevice[]): boolean {
  if (!Array.isArray(value) || depth > maxDepth) return false;
  return value.every((device: unknown) => {
    if (!isRecord(device) || typeof device['type'] !== 'string') return false;
    const points = device['mountpoints'] ?? [device['mountpoint'] ?? null];
    if (!Array.isArray(points)) return false;
    const isEncrypted = isAbove || device['type'] === 'crypt';
    found.push({
      mountPoints: points.filter((point) => typeof point === 'string'),
      isEncrypted,
      fileSystem: textMember(device, 'fstype'),
      uuid: textMember(device, 'uuid'),
    });
    const { children } = device;
    return children === undefined || collect(children, isEncrypted, depth + 1, found);
  });
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const textMember = (record: Readonly<Record<string, unknown>>, name: string): string | undefined =>
  typeof record[name] === 'string' ? record[name] : undefined;
