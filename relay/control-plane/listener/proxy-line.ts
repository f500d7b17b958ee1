import { isIP } from 'node:net';
import type { Socket } from 'node:net';
import { ZtnaError } from '../../../protocol/index.ts';

/** The longest PROXY protocol version 1 line, its CRLF included. */
export const maxProxyLineBytes = 107;

/** What TLS begins with: a data plane on this host dials for itself, without a line. */
const tlsHandshakeRecord = 0x16;

/** The address of whoever dials for itself. */
export const localAddress = 'local';

/** Who is said to have dialled. `address` is the data plane's word and no more than that. */
export interface ProxiedPeer {
  readonly address: string;
  readonly port: number;
}

/**
 * Reads one PROXY v1 line: `PROXY TCP4|TCP6 source destination source-port destination-port`, or
 * `PROXY UNKNOWN`. Throws ERR_MESSAGE_MALFORMED.
 */
export function parseProxyLine(line: string): ProxiedPeer {
  const words = line.split(' ');
  if (words[0] === 'PROXY' && words[1] === 'UNKNOWN') return { address: 'unknown', port: 0 };
  const [signature, family, address, destination, sourcePort, destinationPort] = words;
  const version = family === 'TCP4' ? 4 : family === 'TCP6' ? 6 : -1;
  const isPort = (text: string | undefined) =>
    text !== undefined && /^(?:0|[1-9][0-9]{0,4})$/.test(text) && Number(text) <= 65_535;
  if (
    signature !== 'PROXY' ||
    words.length !== 6 ||
    isIP(address ?? '') !== version ||
    isIP(destination ?? '') !== version ||
    !isPort(sourcePort) ||
    !isPort(destinationPort)
  ) {
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { message: 'a PROXY line could not be read' });
  }
  return { address: address ?? '', port: Number(sourcePort) };
}

/**
 * Takes the PROXY line off a fresh socket and puts back whatever came behind it. The socket is paused and has no
 * listeners of ours when this resolves. A connection that begins with TLS itself is from this host, which alone can
 * open the socket: its address is `local`. Rejects with ERR_MESSAGE_MALFORMED for another beginning, more than
 * `maxProxyLineBytes` without an end, or an early end, and with ERR_HANDSHAKE_TIMEOUT after `timeoutMs`.
 */
export function readProxyLine(socket: Socket, timeoutMs: number): Promise<ProxiedPeer> {
  return new Promise((resolve, reject) => {
    let seen: Buffer = Buffer.alloc(0);
    const malformed = () =>
      new ZtnaError('ERR_MESSAGE_MALFORMED', { message: 'a PROXY line was missing' });
    const timer = setTimeout(() => {
      settle(new ZtnaError('ERR_HANDSHAKE_TIMEOUT'));
    }, timeoutMs);
    const settle = (result: ProxiedPeer | Error) => {
      clearTimeout(timer);
      socket.off('readable', onReadable).off('end', onEnd).off('error', onEnd).off('close', onEnd);
      if (result instanceof Error) reject(result);
      else resolve(result);
    };
    const onEnd = () => {
      settle(malformed());
    };
    const onReadable = () => {
      for (;;) {
        const chunk = socket.read() as Buffer | null;
        if (!chunk) return;
        seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
        if (seen[0] === tlsHandshakeRecord) {
          settle({ address: localAddress, port: 0 });
          socket.unshift(seen);
          return;
        }
        const end = seen.subarray(0, maxProxyLineBytes).indexOf('\r\n');
        if (end === -1) {
          if (seen.length < maxProxyLineBytes) continue;
          settle(malformed());
          return;
        }
        const rest = seen.subarray(end + 2);
        try {
          const peer = parseProxyLine(seen.toString('latin1', 0, end));
          settle(peer);
          if (rest.length > 0) socket.unshift(rest);
        } catch (error) {
          settle(error as Error);
        }
        return;
      }
    };
    socket.on('readable', onReadable).on('end', onEnd).on('error', onEnd).on('close', onEnd);
  });
}
