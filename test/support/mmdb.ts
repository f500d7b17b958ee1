import { isIPv6 } from 'node:net';

/** What a MaxMind file may hold here. Whole numbers become uint32, others doubles. */
export type MmdbValue =
  string | number | boolean | MmdbValue[] | { readonly [key: string]: MmdbValue };

const metadataMarker = Buffer.from('abcdef4d61784d696e642e636f6d', 'hex'); // then "MaxMind.com"
const recordBits = 24;
const ipv4Depth = 96; // IPv4 lies at ::/96

type Node = [left: Node | number | null, right: Node | number | null];

/**
 * The bytes of a MaxMind file (format 2.0) that says these things of these networks, such as `203.0.113.0/24` or
 * `2001:db8::/32`. No network may lie in another.
 */
export function writeMmdb(type: string, networks: Readonly<Record<string, MmdbValue>>): Buffer {
  const data: Buffer[] = [];
  let dataBytes = 0;
  const root: Node = [null, null];
  for (const [network, value] of Object.entries(networks)) {
    const bytes = encode(value);
    insert(root, bitsOf(network), dataBytes);
    data.push(bytes);
    dataBytes += bytes.length;
  }
  const nodes = flatten(root);
  const tree = Buffer.alloc(nodes.length * ((2 * recordBits) / 8));
  nodes.forEach((node, index) => {
    node.forEach((record, side) => {
      const pointer =
        record === null
          ? nodes.length
          : typeof record === 'number'
            ? nodes.length + 16 + record
            : nodes.indexOf(record);
      tree.writeUIntBE(pointer, index * 6 + side * 3, 3);
    });
  });
  const metadata = encode({
    binary_format_major_version: 2,
    binary_format_minor_version: 0,
    build_epoch: 1_700_000_000,
    database_type: type,
    description: { en: 'written by a test' },
    ip_version: 6,
    languages: ['en'],
    node_count: nodes.length,
    record_size: recordBits,
  });
  return Buffer.concat([tree, Buffer.alloc(16), ...data, metadataMarker, metadata]);
}

function insert(root: Node, bits: readonly number[], pointer: number): void {
  let node = root;
  for (const [depth, bit] of bits.entries()) {
    if (depth === bits.length - 1) {
      if (node[bit] !== null) throw new Error('networks overlap');
      node[bit] = pointer;
      return;
    }
    const next = (node[bit] ??= [null, null]);
    if (typeof next === 'number') throw new Error('networks overlap');
    node = next;
  }
}

function flatten(root: Node): Node[] {
  const nodes = [root];
  for (const node of nodes) {
    nodes.push(...node.filter((record): record is Node => Array.isArray(record)));
  }
  return nodes;
}

function bitsOf(network: string): number[] {
  const [address = '', length = ''] = network.split('/');
  const isWide = isIPv6(address);
  const parts = isWide ? wordsOf(address) : address.split('.').map(Number);
  const width = isWide ? 16 : 8;
  const bits = parts.flatMap((part) =>
    Array.from({ length: width }, (_, i) => (part >> (width - 1 - i)) & 1),
  );
  const all = isWide ? bits : [...Array<number>(ipv4Depth).fill(0), ...bits];
  return all.slice(0, (isWide ? 0 : ipv4Depth) + Number(length));
}

function wordsOf(address: string): number[] {
  const [head = '', tail = ''] = address.split('::');
  const before = head.split(':').filter((word) => word !== '');
  const after = tail.split(':').filter((word) => word !== '');
  const zeros = Array<string>(8 - before.length - after.length).fill('0');
  return [...before, ...zeros, ...after].map((word) => parseInt(word, 16));
}

function encode(value: MmdbValue): Buffer {
  if (typeof value === 'string') return withControl(2, Buffer.from(value));
  if (typeof value === 'boolean') return control(14, value ? 1 : 0);
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0) {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      return withControl(6, bytes);
    }
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value);
    return withControl(3, bytes);
  }
  if (Array.isArray(value)) {
    return Buffer.concat([control(11, value.length), ...value.map(encode)]);
  }
  const entries = Object.entries(value);
  return Buffer.concat([
    control(7, entries.length),
    ...entries.flatMap(([key, member]) => [encode(key), encode(member)]),
  ]);
}

function withControl(type: number, bytes: Buffer): Buffer {
  return Buffer.concat([control(type, bytes.length), bytes]);
}

/** Type and size before a value; types above 7 take a byte of their own. */
function control(type: number, size: number): Buffer {
  const [short, more] = size < 29 ? [size, []] : [29, [size - 29]];
  if (size >= 29 + 256) throw new Error('too large for a test');
  return Buffer.from(type > 7 ? [short, type - 7, ...more] : [(type << 5) | short, ...more]);
}
