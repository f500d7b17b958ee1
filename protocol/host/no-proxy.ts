import { BlockList, isIP } from 'node:net';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** True for this very machine: `localhost`, names under it, 127.0.0.0/8 and ::1. `host` is without brackets. */
export function isLoopback(host: string): boolean {
  if (isIP(host) > 0) return covers(loopback, host);
  return /^(?:.+\.)?localhost\.?$/i.test(host);
}

/**
 * True when an entry of a NO_PROXY list is an IP address or a CIDR range that holds `host`; one with `:port` (an IPv6
 * address then in brackets) is for that port alone. Never true for a name: names are not resolved for this.
 */
export function isListedAddress(list: string, host: string, port: number): boolean {
  if (isIP(host) === 0) return false;
  return list.split(/[\s,]+/).some((entry) => {
    const [, bracketed, plain, onlyPort] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(entry) ?? [];
    if (onlyPort !== undefined && Number(onlyPort) !== port) return false;
    const range = rangeOf(bracketed ?? plain ?? entry.replace(/^\[|\]$/g, ''));
    return range !== undefined && covers(range, host);
  });
}

/** Reads `ADDRESS` or `ADDRESS/BITS`; undefined for anything else. */
function rangeOf(text: string): BlockList | undefined {
  const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const version = isIP(address);
  const widest = version === 4 ? 32 : 128;
  if (version === 0 || Number(bits ?? 0) > widest) return undefined;
  const range = new BlockList();
  range.addSubnet(address, Number(bits ?? widest), version === 4 ? 'ipv4' : 'ipv6');
  return range;
}

function covers(range: BlockList, address: string): boolean {
  return range.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6');
}
