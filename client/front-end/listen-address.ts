import { BlockList, isIP } from 'node:net';
import { ZtnaError } from '../../protocol/index.ts';

/** Where a listener binds. Port 0 means any free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export const loopbackHost = '127.0.0.1';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Reads `PORT`, `ADDR:PORT` or `[ADDR]:PORT`. Throws ERR_CONFIG_USAGE. */
export function parseListenAddress(text: string): ListenAddress {
  const [, bracketed, plain, portText = ''] =
    /^(?:\[([0-9a-fA-F:.]+)\]:|([0-9A-Za-z.]+):)?(\d{1,5})$/.exec(text) ?? [];
  const named = bracketed ?? plain ?? loopbackHost;
  const host = named === 'localhost' ? loopbackHost : named;
  const port = Number(portText);
  const isRightFamily = bracketed === undefined ? isIP(host) === 4 : isIP(host) === 6;
  if (portText === '' || port > 65_535 || !isRightFamily) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'that is not an address to listen on',
      hint: 'use --listen PORT, --listen ADDR:PORT or --listen [ADDR]:PORT',
      hop: 'client',
    });
  }
  return { host, port };
}

/** True when only this machine can reach the address. */
export function isLoopback(host: string): boolean {
  return loopback.check(host, isIP(host) === 6 ? 'ipv6' : 'ipv4');
}

/** `host:port`, with brackets where IPv6 needs them. */
export function formatAddress({ host, port }: ListenAddress): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}
