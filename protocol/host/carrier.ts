import { connect, type Socket } from 'node:net';
import { connectThroughProxy } from './proxy-connect.ts';
import { proxyFor } from './proxy.ts';
import { connectAddress, familyOptions } from './relay-address.ts';

/** What a connection is made to. */
export interface CarrierTarget {
  readonly url: string;
  /** Unix socket to connect to in place of the URL's address. */
  readonly socketPath?: string;
}

/** Options of `tls.connect`: a connection that a proxy has made, or where to make one. */
export type Carrier =
  | { readonly socket: Socket }
  | { readonly path: string }
  | ({ readonly host: string; readonly port: number } & typeof familyOptions);

/**
 * The way to a relay: through the proxy that the environment names, connected already, or an address. Throws
 * ERR_CONFIG_USAGE, and as `connectThroughProxy`.
 */
export async function findCarrier(
  { url, socketPath }: CarrierTarget,
  signal: AbortSignal,
): Promise<Carrier> {
  if (socketPath !== undefined) return { path: socketPath };
  const address = connectAddress(url);
  const proxy = proxyFor(address);
  if (proxy) return { socket: await connectThroughProxy(proxy, address, signal) };
  return { ...address, ...familyOptions };
}

/** The same as a connection without TLS, which may still be connecting. */
export async function openCarrier(target: CarrierTarget, signal: AbortSignal): Promise<Socket> {
  const carrier = await findCarrier(target, signal);
  return 'socket' in carrier ? carrier.socket : connect(carrier);
}
