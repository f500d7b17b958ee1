import type { TLSSocket } from 'node:tls';
import { errorRow, forwardProtocol, toZtnaError, type ListedRelay } from '../../protocol/index.ts';
import {
  dialFirst,
  dialTls,
  type Identity,
  type KnownRelays,
  type Logger,
} from '../../protocol/host/index.ts';
import { proxyLine } from './address.ts';
import { Comeback } from './comeback.ts';
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
