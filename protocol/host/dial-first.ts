import { toZtnaError, ZtnaError } from '../errors.ts';
import { abortError } from './tls.ts';

/** A candidate that has not answered after so long gets company; one that fails is followed at once. */
const staggerMs = 1_000;

export interface DialFirstOptions<C, T> {
  /** In order of preference, one at least. */
  readonly candidates: readonly C[];
  /** One attempt; it ends by itself when its signal aborts. */
  readonly dial: (candidate: C, signal: AbortSignal) => Promise<T>;
  /** Gets rid of a connection that came too late. */
  readonly discard: (connection: T) => void;
  readonly onFailed?: (candidate: C, error: ZtnaError) => void;
  readonly signal?: AbortSignal;
  readonly staggerMs?: number;
}

/**
 * Connects to the first of several that answers. The next is tried at once when one fails, and besides it when one is
 * silent; whichever connects first counts. Throws what the preferred one failed with when all do.
 */
export async function dialFirst<C, T>(
  options: DialFirstOptions<C, T>,
): Promise<{ readonly candidate: C; readonly connection: T }> {
  const { candidates, dial, discard, onFailed, signal } = options;
  const settled = new AbortController();
  const attempts = signal ? AbortSignal.any([signal, settled.signal]) : settled.signal;
  const errors = new Map<number, ZtnaError>();
  return new Promise((resolve, reject) => {
    let next = 0;
    let timer: NodeJS.Timeout | undefined;
    const finish = (act: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      act();
      settled.abort();
    };
    const onAbort = (): void => {
      finish(() => {
        reject(abortError(signal));
      });
    };
    const tryNext = (): void => {
      clearTimeout(timer);
      const at = next++;
      const candidate = candidates[at];
      if (candidate === undefined) return;
      if (next < candidates.length) timer = setTimeout(tryNext, options.staggerMs ?? staggerMs);
      dial(candidate, attempts).then(
        (connection) => {
          if (attempts.aborted) discard(connection);
          else {
            finish(() => {
              resolve({ candidate, connection });
            });
          }
        },
        (thrown: unknown) => {
          if (attempts.aborted) return;
          const error = toZtnaError(thrown);
          errors.set(at, error);
          onFailed?.(candidate, error);
          if (errors.size === candidates.length) {
            finish(() => {
              reject(errors.get(0) ?? error);
            });
          } else tryNext();
        },
      );
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    else if (candidates.length === 0) {
      finish(() => {
        reject(new ZtnaError('ERR_RELAY_UNREACHABLE', { hop: 'client', reason: 'no_relay_known' }));
      });
    } else tryNext();
  });
}
