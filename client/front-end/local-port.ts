import type { Socket } from 'node:net';
import type { ResetCode } from '../../protocol/index.ts';
import { bridgeStream, listenTcp, resetSocket } from '../../protocol/host/index.ts';
import type { KeptTunnel, OpenedTunnel } from '../agent/kept-tunnel.ts';
import type { ListenAddress } from './listen-address.ts';

/**
 * A connection waits so long for a tunnel that is being redialled before it is reset; for one that is kept without a
 * path, as long as that is kept.
 */
const maxWaitMs = 30_000;

/** So many connections may wait for a tunnel at once; one more is reset. */
const maxWaiting = 256;

/** Where a connection finds its tunnel. */
export type TunnelProvider = Pick<KeptTunnel, 'current' | 'whenOpen'> &
  Partial<Pick<KeptTunnel, 'holdLeftMs'>>;

/** A local listener whose every connection becomes a stream of the tunnel. */
export interface LocalPort {
  readonly address: ListenAddress;
  /** Stops listening and resets what is still connected. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Listens at `address`. `onReset` is told of each stream that was reset, by whomever: its connection only sees a reset.
 * Throws ERR_CLIENT_PORT_BUSY.
 */
export async function startLocalPort(
  address: ListenAddress,
  kept: TunnelProvider,
  onReset: (code: ResetCode) => void = () => undefined,
): Promise<LocalPort> {
  const sockets = new Set<Socket>();
  let waiting = 0;

  async function serve(socket: Socket): Promise<void> {
    let tunnel = kept.current;
    if (!tunnel && waiting < maxWaiting) {
      waiting++;
      tunnel = await waitForTunnel(kept, socket);
      waiting--;
    }
    if (tunnel && !socket.destroyed) connect(tunnel, socket, onReset);
    else resetSocket(socket);
  }

  const server = await listenTcp({
    host: address.host,
    port: address.port,
    onConnection: (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      socket.on('error', () => undefined); // its close follows, and the bridge tells the other side
      // One turn later what the caller has sent already is read together with the stream's opening.
      setImmediate(() => void serve(socket));
    },
  });
  return {
    address: { host: server.address, port: server.port },
    stop: async () => {
      for (const socket of sockets) resetSocket(socket);
      await server.stop();
    },
  };
}

async function waitForTunnel(
  kept: TunnelProvider,
  socket: Socket,
): Promise<OpenedTunnel | undefined> {
  const gone = new AbortController();
  const giveUp = (): void => gone.abort();
  const timer = setTimeout(giveUp, Math.max(maxWaitMs, kept.holdLeftMs ?? 0));
  socket.once('close', giveUp);
  try {
    return await kept.whenOpen(gone.signal);
  } finally {
    clearTimeout(timer);
    socket.off('close', giveUp);
  }
}

function connect(tunnel: OpenedTunnel, socket: Socket, onReset: (code: ResetCode) => void): void {
  try {
    bridgeStream(tunnel.openStream(), socket, (outcome) => {
      if (outcome !== 'completed') onReset(outcome);
    });
    socket.resume();
  } catch {
    resetSocket(socket); // too many connections, or the tunnel closed in this very turn
  }
}
