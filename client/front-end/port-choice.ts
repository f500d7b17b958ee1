import { createHash } from 'node:crypto';
import { ZtnaError } from '../../protocol/index.ts';
import { loopbackHost, type ListenAddress } from './listen-address.ts';

/** Automatic ports come from here, so that they rarely meet a well-known one. */
export const automaticPorts = { first: 20_000, count: 40_000 } as const;

/** So many automatic ports are tried before giving up. */
export const maxPortProbes = 64;

export interface PortWishes {
  readonly profile: string;
  readonly app: string;
  /** The port that the app's administrator suggests. */
  readonly hint: number | undefined;
  /** The automatic port that this app had last time. */
  readonly remembered: number | undefined;
}

export interface PortCandidate extends ListenAddress {
  readonly from: 'hint' | 'remembered' | 'automatic';
}

/** Where to listen, in order of preference. The automatic ports of one app always come in the same order. */
export function* candidatePorts(wishes: PortWishes): Generator<PortCandidate> {
  if (wishes.hint !== undefined && wishes.hint > 0 && wishes.hint <= 65_535) {
    yield { host: loopbackHost, port: wishes.hint, from: 'hint' };
  }
  if (wishes.remembered !== undefined) {
    yield { host: loopbackHost, port: wishes.remembered, from: 'remembered' };
  }
  const digest = createHash('sha256').update(`${wishes.profile}\0${wishes.app}`).digest();
  const start = digest.readUInt32BE(0);
  for (let i = 0; i < maxPortProbes; i++) {
    const port = automaticPorts.first + ((start + i) % automaticPorts.count);
    yield { host: loopbackHost, port, from: 'automatic' };
  }
}

/** Binds the first candidate that is free. Throws ERR_CLIENT_PORT_BUSY when every one is taken. */
export async function bindFirst<T>(
  candidates: Iterable<PortCandidate>,
  bind: (address: ListenAddress) => Promise<T>,
): Promise<{ readonly listener: T; readonly candidate: PortCandidate }> {
  let lastError: unknown;
  for (const candidate of candidates) {
    try {
      return { listener: await bind(candidate), candidate };
    } catch (error) {
      lastError = error;
    }
  }
  throw new ZtnaError('ERR_CLIENT_PORT_BUSY', {
    message: 'no local port is free for this app',
    hint: 'name one with --listen PORT',
    hop: 'client',
    cause: lastError,
  });
}
