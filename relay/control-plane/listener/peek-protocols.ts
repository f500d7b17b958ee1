import type { Socket } from 'node:net';
import { ZtnaError } from '../../../protocol/index.ts';
import { readClientHello } from '../../data-plane/client-hello.ts';

/** A ClientHello may span several segments; no real one is larger. */
const maxHelloBytes = 16_384 + 5;

export interface Peeked {
  /** The protocols that the ClientHello offers. */
  readonly offered: readonly string[];
  /** Puts every byte back, for whoever ends TLS. Until then the end of the connection shows as its `close`. */
  readonly putBack: () => void;
}

/**
 * Waits for a whole ClientHello. Rejects with ERR_MESSAGE_MALFORMED for anything else, and with ERR_HANDSHAKE_TIMEOUT
 * after `timeoutMs`.
 */
export function peekProtocols(socket: Socket, timeoutMs: number): Promise<Peeked> {
  return new Promise((resolve, reject) => {
    let seen: Buffer = Buffer.alloc(0);
    let isDone = false;
    const leave = () => {
      socket.off('readable', onReadable);
    };
    const settle = (result: readonly string[] | Error) => {
      isDone = true;
      clearTimeout(timer);
      socket.off('end', onEnd).off('error', onEnd).off('close', onEnd);
      if (result instanceof Error) {
        leave();
        reject(result);
        return;
      }
      const putBack = () => {
        leave();
        socket.unshift(seen);
      };
      resolve({ offered: result, putBack });
    };
    const onEnd = () => {
      settle(new ZtnaError('ERR_MESSAGE_MALFORMED', { message: 'a ClientHello was missing' }));
    };
    const timer = setTimeout(() => {
      settle(new ZtnaError('ERR_HANDSHAKE_TIMEOUT'));
    }, timeoutMs);
    const onReadable = () => {
      for (;;) {
        const chunk = socket.read() as Buffer | null;
        if (!chunk) return;
        seen = Buffer.concat([seen, chunk]);
        if (isDone) {
          // Nobody has anything to say before an answer.
          if (seen.length > maxHelloBytes) socket.destroy();
          continue;
        }
        const hello = readClientHello(seen);
        if (hello.state === 'complete') settle(hello.protocols);
        else if (hello.state === 'refused' || seen.length > maxHelloBytes) {
          onEnd();
          return;
        }
      }
    };
    socket.on('readable', onReadable).on('end', onEnd).on('error', onEnd).on('close', onEnd);
  });
}
