import { setTimeout as delay } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import { errorRow, forwardProtocol, toZtnaError, type ListedRelay } from '../../protocol/index.ts';
import {
  abortError,
  dialFirst,
  dialTls,
  fullJitterDelayMs,
  type Identity,
  type KnownRelays,
  type Logger,
} from '../../protocol/host/index.ts';
import { proxyLine } from './address.ts';
import type { ControlDial } from './forward.ts';
import { limits } from './limits.ts';

/**
 * The way to a control plane on another host: over TLS between two data planes, since a PROXY line over plain TCP could
 * be anyone's. Relays that answer are preferred to those that did not; one that is silent is followed by the next. While
 * none answers, a connection waits for the first that does, until its signal aborts: whoever had lost the control plane
 * is there again in the moment in which that can be reached, and not when its own next attempt is due.
 */
export function dialRemoteControl(options: {
  readonly identity: () => Identity;
  readonly known: KnownRelays;
  readonly logger: Logger;
}): ControlDial {
  const { identity, known, logger } = options;
  const failedAtMs = new Map<string, number>();
  const isSuspect = (url: string) =>
    performance.now() - (failedAtMs.get(url) ?? -Infinity) < limits.forwardSuspectMs;
  const connect = async (signal: AbortSignal) => {
    const current = identity();
    const isOther = (relay: ListedRelay) => relay.isControl && relay.id !== current.id;
    const listed = known.relays.filter(isOther).map(({ url }) => url);
    const urls = listed.length > 0 ? listed : [current.relayUrl];
    const { candidate, connection } = await dialFirst<string, TLSSocket>({
      candidates: [
        ...urls.filter((url) => !isSuspect(url)),
        ...urls.filter((url) => isSuspect(url)),
      ],
      dial: (url, attempt) =>
        dialTls({
          url,
          alpn: forwardProtocol,
          identity: current,
          trust: { authorities: current.bundle.authorities, role: 'data-plane' },
          signal: attempt,
          timeoutMs: limits.forwardConnectMs,
        }),
      discard: (socket) => {
        socket.destroy();
      },
      onFailed: (url, { code, message }) => {
        if (!isSuspect(url)) logger.warn('control_relay_unreachable', { url, code, message });
        failedAtMs.set(url, performance.now());
      },
      signal,
      staggerMs: limits.forwardStaggerMs,
    });
    failedAtMs.delete(candidate);
    return connection;
  };
  const comeback = new Comeback(async (signal) => {
    (await connect(signal)).destroy();
  });
  return async (ends, signal) => {
    for (;;) {
      try {
        const connection = await connect(signal);
        connection.write(proxyLine(ends));
        return connection;
      } catch (error) {
        const { family } = errorRow(toZtnaError(error).code);
        if (signal.aborted || family !== 'unavailable') throw error;
      }
      await comeback.wait(signal);
    }
  };
}

/** Looks, for all who wait, whether something can be reached again. */
class Comeback {
  readonly #attempt: (signal: AbortSignal) => Promise<void>;
  #waiting = 0;
  #looking: { readonly found: Promise<void>; readonly stop: () => void } | undefined;

  constructor(attempt: (signal: AbortSignal) => Promise<void>) {
    this.#attempt = attempt;
  }

  /** Resolves once it may be tried again, not for all in the same moment. Throws when the signal aborts before. */
  async wait(signal: AbortSignal): Promise<void> {
    this.#waiting++;
    this.#looking ??= this.#look();
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => {
      aborted.reject(abortError(signal));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal.aborted) onAbort();
      await Promise.race([this.#looking.found, aborted.promise]);
      const spreadMs = this.#waiting * limits.forwardSpreadMs;
      await delay(fullJitterDelayMs(0, { baseMs: spreadMs }), undefined, { signal });
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#waiting--;
      this.#stopUnlessWaited();
    }
  }

  #stopUnlessWaited(): void {
    if (this.#waiting === 0) this.#looking?.stop();
  }

  #look() {
    const stopping = new AbortController();
    const { signal } = stopping;
    const found = (async () => {
      while (!signal.aborted) {
        await delay(limits.forwardAgainMs, undefined, { signal }).catch(() => undefined);
        if (await this.#attempt(signal).then(isDone, () => false)) break;
      }
      if (!signal.aborted) this.#looking = undefined;
    })();
    return {
      found,
      stop: () => {
        this.#looking = undefined;
        stopping.abort();
      },
    };
  }
}

const isDone = () => true;
