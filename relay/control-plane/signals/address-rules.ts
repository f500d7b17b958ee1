import { BlockList, isIP } from 'node:net';

type Range = readonly [address: string, prefix: number];

/** No server is there, whatever a configuration says: metadata services, groups, nobody. */
const never: readonly Range[] = [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
  ['::', 128],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
  ['fd00:ec2::', 32], // the metadata service of AWS
];

/** Only where the configuration says that private addresses are meant. */
const privately: readonly Range[] = [
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['::1', 128],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 32], // Teredo and 6to4 hold an IPv4 address that nobody checked
  ['2002::', 16],
  ['2001:db8::', 32],
  ['fc00::', 7],
];

function listOf(ranges: readonly Range[]): BlockList {
  const list = new BlockList();
  for (const [address, prefix] of ranges) {
    list.addSubnet(address, prefix, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }
  return list;
}

const neverList = listOf(never);
const privateList = listOf(privately);

/** True when a server outside may be at `address`. IPv4 addresses inside of IPv6 ones are judged as what they are. */
export function mayDial(address: string, allowPrivate: boolean): boolean {
  const plain = address.split('%')[0] ?? '';
  const version = isIP(plain);
  if (version === 0) return false;
  const embedded = version === 6 ? embeddedIpv4(plain) : undefined;
  if (embedded !== undefined) return mayDial(embedded, allowPrivate);
  const family = version === 6 ? 'ipv6' : 'ipv4';
  if (neverList.check(plain, family)) return false;
  return allowPrivate || !privateList.check(plain, family);
}

/** The IPv4 address of a mapped (::ffff:0:0/96) or translated (64:ff9b::/96) one. */
function embeddedIpv4(address: string): string | undefined {
  const { hostname } = new URL(`http://[${address}]/`); // in its shortest form, all of it in hexadecimal
  const match = /^\[(?:::ffff:|64:ff9b::)([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/.exec(hostname);
  if (!match) return undefined;
  const [high, low] = [parseInt(match[1] ?? '', 16), parseInt(match[2] ?? '', 16)];
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}
