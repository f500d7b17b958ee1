import type { Socket } from 'node:net';
import { ZtnaError } from '../../../protocol/index.ts';
import { readClientHello } from '../../data-plane/client-hello.ts';

/** A ClientHello may span several segments; no real one is larger. */
const maxHelloBytes = 16_384 + 5;

/**
 * Waits for a whole ClientHello and answers which protocols it offers, putting every byte back. Rejects with
 * ERR_MESSAGE_MALFORMED for anything else, and with ERR_HANDSHAKE_TIMEOUT after `timeoutMs`.
 */
export function peekProtocols(socket: Socket, timeoutMs: number): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    let seen: Buffer = Buffer.alloc(0);
    const settle = (result: readonly string[] | Error) => {
      clearTimeout(timer);
      socket.off('readable', onReadable).off('end', onEnd).off('error', onEnd).off('close', onEnd);
      if (result instanceof Error) {
        reject(result);
        return;
      }
      socket.unshift(seen);
      resolve(result);
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
        const hello = readClientHello(seen);
        if (hello.state === 'complete') settle(hello.protocols);
        else if (hello.state === 'refused' || seen.length > maxHelloBytes) onEnd();
        else continue;
        return;
      }
    };
    socket.on('readable', onReadable).on('end', onEnd).on('error', onEnd).on('close', onEnd);
  });
}
