import { toZtnaError } from '../protocol/index.ts';
import { http } from '../protocol/host/index.ts';
import { dialApp, type Resolve } from './app-dialler.ts';
import { formatHost, type Target } from './target.ts';

/** How one app is checked. */
export interface CheckOptions {
  /** Asked for with GET once the connection stands; null leaves it at the connection. */
  readonly httpPath: string | null;
  readonly intervalMs: number;
  readonly timeoutMs: number;
}

export const defaultCheck: CheckOptions = { httpPath: null, intervalMs: 10_000, timeoutMs: 2_000 };

const maxHeaderBytes = 16_384;

/**
 * Checks an app once: it takes a connection and, with a path, answers it with a status from 200 to 399. Resolves to
 * undefined, or to why not as a reason. Never rejects.
 */
export async function checkApp(
  target: Target,
  check: CheckOptions,
  signal: AbortSignal,
  resolve?: Resolve,
): Promise<string | undefined> {
  const { httpPath, timeoutMs } = check;
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  try {
    const socket = await dialApp(target, {
      signal: limit,
      timeoutMs,
      ...(resolve === undefined ? {} : { resolve }),
    });
    socket.on('error', () => undefined);
    try {
      if (httpPath === null) return undefined;
      const status = await statusOf(socket, target, httpPath, limit);
      return status >= 200 && status < 400 ? undefined : `http_status_${status}`;
    } finally {
      socket.destroy();
    }
  } catch (error) {
    return toZtnaError(error).reason ?? (limit.aborted ? 'timeout' : 'http_failed');
  }
}

function statusOf(
  socket: Awaited<ReturnType<typeof dialApp>>,
  target: Target,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = http.request(
      {
        createConnection: () => socket,
        path,
        headers: { host: `${formatHost(target)}:${target.port}`, 'user-agent': 'ztna-connector' },
        maxHeaderSize: maxHeaderBytes,
        signal,
      },
      (response) => {
        response.on('error', () => undefined);
        response.destroy();
        resolve(response.statusCode ?? 0);
      },
    );
    asked.on('error', reject);
    asked.on('socket', () => socket.resume());
    asked.end();
  });
}
