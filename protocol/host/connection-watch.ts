import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { ZtnaError } from '../errors.ts';
import { machineNetwork, type NetworkWatch } from './network-watch.ts';

/** A sign of life must come so soon after the machine woke, or got other addresses. */
const answerWithinMs = 2_000;

/**
 * Looks after one connection when the machine wakes or its network changes, instead of waiting until its silence shows:
 * calls `onLost`, once, when its own address is gone, or when it does not answer within two seconds. Whoever listens
 * cuts it. Returns what ends the watch; it ends with the connection too.
 */
export function watchConnection(
  webSocket: WebSocket,
  onLost: (error: ZtnaError) => void,
  options: { readonly network?: NetworkWatch; readonly answerWithinMs?: number } = {},
): () => void {
  const { network = machineNetwork } = options;
  // ws keeps it in a member that its types do not name; the package is pinned to one version.
  const { _socket: socket } = webSocket as unknown as { readonly _socket: Socket | null };
  const { localAddress } = socket ?? {};
  // An address that was never listed cannot be missed: not every machine lists all it has.
  const isListed = localAddress !== undefined && network.hasAddress(localAddress);
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;
  const stop = (): void => {
    isStopped = true;
    clearTimeout(timer);
    unsubscribe();
    webSocket.off('close', stop);
  };
  const lose = (reason: string, message: string): void => {
    stop();
    onLost(new ZtnaError('ERR_RELAY_UNREACHABLE', { message, hop: 'network', reason }));
  };
  const look = (): void => {
    if (isListed && !network.hasAddress(localAddress)) {
      lose('address_gone', 'this machine has lost the address that the connection was made from');
    } else if (timer === undefined && webSocket.readyState === webSocket.OPEN) {
      const before = socket?.bytesRead;
      webSocket.ping();
      timer = setTimeout(() => {
        // After a stall of this process timers run before what has arrived meanwhile was read.
        setImmediate(() => {
          timer = undefined;
          // One that is held back on our side cannot show a sign of life.
          if (isStopped || webSocket.isPaused || socket?.bytesRead !== before) return;
          lose('network_silent', 'the connection did not outlast a change of the network');
        });
      }, options.answerWithinMs ?? answerWithinMs);
    }
  };
  const unsubscribe = network.subscribe(look);
  webSocket.once('close', stop);
  return stop;
}
