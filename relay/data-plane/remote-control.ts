import type { TLSSocket } from 'node:tls';
import { forwardProtocol, type ListedRelay } from '../../protocol/index.ts';
import {
  dialFirst,
  dialTls,
  type Identity,
  type KnownRelays,
  type Logger,
} from '../../protocol/host/index.ts';
import { proxyLine } from './address.ts';
import type { ControlDial } from './forward.ts';
import { limits } from './limits.ts';

/**
 * The way to a control plane on another host: over TLS between two data planes, since a PROXY line over plain TCP could
 * be anyone's. Relays that answer are preferred to those that did not; one that is silent is followed by the next.
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
  return async (ends, signal) => {
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
        failedAtMs.set(url, performance.now());
        logger.warn('control_relay_unreachable', { url, code, message });
      },
      signal,
      staggerMs: limits.forwardStaggerMs,
    });
    failedAtMs.delete(candidate);
    connection.write(proxyLine(ends));
    return connection;
  };
}
