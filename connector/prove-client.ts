import {
  toZtnaError,
  ZtnaError,
  type ConnectorHandshake,
  type ProvedClient,
} from '../protocol/index.ts';
import { handshakeTimeoutMs, maxHeldRecordBytes } from './limits.ts';
import type { RawData, WebSocket } from 'ws';

/** Records that a client sent right behind message 3, kept unread until it is admitted. */
export interface HeldRecords {
  /** Ends the holding and hands over what came. Reading goes on with `socket.resume()`. */
  take(): Buffer[];
}

export interface Proof {
  readonly client: ProvedClient;
  readonly held: HeldRecords;
}

/**
 * Carries out the connector's side of the handshake on a socket. Afterwards the socket is paused, and what had been
 * read already is held. Throws ERR_HANDSHAKE_TIMEOUT, ERR_TUNNEL_PATH_LOST when the socket closes, and the errors of
 * the handshake; closing the socket is the caller's.
 */
export function proveClient(
  socket: WebSocket,
  handshake: ConnectorHandshake,
  timeoutMs: number = handshakeTimeoutMs,
): Promise<Proof> {
  return new Promise((resolve, reject) => {
    let hasAnswered = false;
    const timer = setTimeout(() => {
      fail(new ZtnaError('ERR_HANDSHAKE_TIMEOUT'));
    }, timeoutMs);
    const settle = () => {
      clearTimeout(timer);
      socket.off('message', onMessage).off('close', onClose);
    };
    const fail = (error: unknown) => {
      settle();
      reject(toZtnaError(error));
    };
    const onClose = () => {
      fail(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'handshake_left' }));
    };
    const onMessage = (data: RawData, isBinary: boolean) => {
      try {
        const message = readBinary(data, isBinary);
        if (!hasAnswered) {
          hasAnswered = true;
          socket.send(handshake.receiveMessage1(message));
          return;
        }
        const client = handshake.receiveMessage3(message);
        settle();
        resolve({ client, held: holdRecords(socket) });
      } catch (error) {
        fail(error);
      }
    };
    socket.on('message', onMessage).on('close', onClose);
  });
}

/** Pausing stops the socket, but what it had read already still comes. */
function holdRecords(socket: WebSocket): HeldRecords {
  const held: Buffer[] = [];
  let heldBytes = 0;
  const onMessage = (data: RawData, isBinary: boolean) => {
    heldBytes += Buffer.isBuffer(data) ? data.length : 0;
    if (!isBinary || !Buffer.isBuffer(data) || heldBytes > maxHeldRecordBytes) socket.terminate();
    else held.push(data);
  };
  socket.on('message', onMessage);
  socket.pause();
  return {
    take: () => {
      socket.off('message', onMessage);
      return held;
    },
  };
}

function readBinary(data: RawData, isBinary: boolean): Buffer {
  if (!isBinary || !Buffer.isBuffer(data)) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
  return data;
}
