import { lookup } from 'node:dns/promises';
import { connect, isIP, type Socket } from 'node:net';
import { toZtnaError, ZtnaError } from '../protocol/index.ts';
import { appConnectTimeoutMs } from './limits.ts';
import { isDialable, type Target } from './target.ts';

export type Resolve = (host: string) => Promise<readonly string[]>;

export interface AppDialOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs?: number;
  /** Addresses of a host name, in the order in which to try them. Default: the system's resolver. */
  readonly resolve?: Resolve;
}

/**
 * Connects to a target of our own map. A name is resolved once and the addresses of that one answer are dialled, so
 * what was checked is what is reached. The socket half-closes, has Nagle's algorithm off, and is paused.
 * Throws ERR_STREAM_REFUSED when the app refused, ERR_STREAM_UNREACHABLE otherwise; `signal` aborts with the latter.
 */
export async function dialApp(target: Target, options: AppDialOptions): Promise<Socket> {
  const attempt = new AbortController();
  const stop = () => {
    attempt.abort(new ZtnaError('ERR_STREAM_UNREACHABLE', { hop: 'app', reason: 'timeout' }));
  };
  const timer = setTimeout(stop, options.timeoutMs ?? appConnectTimeoutMs);
  options.signal.addEventListener('abort', stop, { once: true });
  if (options.signal.aborted) stop();
  try {
    return await resolveAndConnect(target, options.resolve ?? resolveBySystem, attempt.signal);
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener('abort', stop);
  }
}

async function resolveAndConnect(
  target: Target,
  resolve: Resolve,
  limit: AbortSignal,
): Promise<Socket> {
  const addresses = await addressesOf(target.host, resolve, limit);
  const dialable = addresses.filter(isDialable);
  if (dialable.length === 0) {
    throw unreachable(addresses.length > 0 ? 'address_blocked' : 'no_address');
  }
  let last: ZtnaError | undefined;
  for (const address of dialable.slice(0, maxAddressesTried)) {
    if (limit.aborted) break;
    try {
      return await connectTo(address, target.port, limit);
    } catch (error) {
      last = toZtnaError(error);
    }
  }
  throw last ?? unreachable('timeout');
}

const maxAddressesTried = 4;

const resolving = new Map<string, Promise<readonly string[]>>();

/**
 * The system's resolver blocks one of the process's few worker threads until it answers, so a name is asked for once
 * at a time however many streams wait.
 */
function resolveBySystem(host: string): Promise<readonly string[]> {
  const known = resolving.get(host);
  if (known) return known;
  const asked = lookup(host, { all: true, order: 'ipv4first' })
    .then((answers) => answers.map((answer) => answer.address))
    .finally(() => resolving.delete(host));
  resolving.set(host, asked);
  return asked;
}

async function addressesOf(
  host: string,
  resolve: Resolve,
  limit: AbortSignal,
): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  try {
    return await abortable(resolve(host), limit);
  } catch (cause) {
    throw unreachable('name_not_found', cause);
  }
}

/** The system's resolver cannot be cancelled; its late answer is dropped. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => {
    reject(signal.reason as Error);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    promise.catch(() => undefined);
  }
}

function connectTo(host: string, port: number, limit: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
    socket.pause();
    const settle = () => {
      limit.removeEventListener('abort', onAbort);
      socket.off('connect', onConnect);
      socket.off('error', onError);
    };
    const onConnect = () => {
      settle();
      resolve(socket);
    };
    const onError = (cause: NodeJS.ErrnoException) => {
      settle();
      const isRefused = cause.code === 'ECONNREFUSED' || cause.code === 'ECONNRESET';
      reject(
        isRefused
          ? new ZtnaError('ERR_STREAM_REFUSED', { hop: 'app', reason: 'app_refused', cause })
          : unreachable('app_unreachable', cause),
      );
    };
    const onAbort = () => {
      settle();
      abandon(socket);
      reject(unreachable('timeout', limit.reason));
    };
    socket.on('connect', onConnect);
    socket.on('error', onError);
    if (limit.aborted) onAbort();
    else limit.addEventListener('abort', onAbort, { once: true });
  });
}

/** Where the connection was made meanwhile, the app must see a reset, not an empty but complete conversation. */
function abandon(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.resetAndDestroy(); // waits for a connection that is still being made
  const timer = setTimeout(() => socket.destroy(), abandonWithinMs);
  socket.once('close', () => {
    clearTimeout(timer);
  });
}

const abandonWithinMs = 1_000;

function unreachable(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_STREAM_UNREACHABLE', { hop: 'app', reason, cause });
}
