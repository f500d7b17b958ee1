import { isIPv4, isIPv6 } from 'node:net';

/** Both ends of an accepted TCP connection, in plain form: IPv4 without its IPv6 mapping. */
export interface Endpoints {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/** Removes the IPv6 mapping of an IPv4 address and a zone index. */
export function plainAddress(address: string): string {
  const text = address.split('%')[0] ?? '';
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text)?.[1];
  return mapped ?? text;
}

/** The ends of `socket`, or undefined when it is gone already. */
export function endpointsOf(socket: {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
}): Endpoints | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  if (!remoteAddress || !remotePort || !localAddress || !localPort) return undefined;
  return {
    remoteAddress: plainAddress(remoteAddress),
    remotePort,
    localAddress: plainAddress(localAddress),
    localPort,
  };
}

/** What counts as one stranger: an IPv4 address, or the /64 of an IPv6 one. */
export function limitKeyOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = '', tail] = address.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const after = tail === '' ? 0 : tail.split(':').length;
    while (groups.length < 8 - after && groups.length < 4) groups.push('0');
    if (groups.length < 4) groups.push(...tail.split(':'));
  }
  return (
    groups
      .slice(0, 4)
      .map((group) => parseInt(group, 16).toString(16))
      .join(':') + '::/64'
  );
}

/** The PROXY protocol line, version 1, that names the client of a connection handed on. */
export function proxyLine(ends: Endpoints): string {
  const family = isIPv4(ends.remoteAddress) ? 'TCP4' : 'TCP6';
  const addresses = `${ends.remoteAddress} ${ends.localAddress}`;
  return `PROXY ${family} ${addresses} ${ends.remotePort} ${ends.localPort}\r\n`;
}
