import { dataProtocol, instanceHeader, slotPath, type InstanceId } from '../protocol/index.ts';
import { dialWebSocket, type Identity } from '../protocol/host/index.ts';
import type { WebSocket } from 'ws';

/** Dials a data WebSocket that waits for a tunnel at the relay of that address. Throws as `dialWebSocket`. */
export function dialSlot(
  url: string,
  as: { readonly identity: Identity; readonly instance: InstanceId },
  signal: AbortSignal,
): Promise<WebSocket> {
  return dialWebSocket({
    url,
    alpn: dataProtocol,
    serverRole: 'data-plane',
    identity: as.identity,
    path: slotPath,
    headers: { [instanceHeader]: as.instance },
    signal,
  });
}
