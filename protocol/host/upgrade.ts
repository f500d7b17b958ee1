import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { errorRow, isErrorCode, toZtnaError, ZtnaError, type ErrorCode } from '../errors.ts';

/** Response header that names the error code of a refused upgrade: the only word about it that crosses the wire. */
export const errorHeader = 'ztna-error';

/** HTTP status for a close code: they lean on each other's numbers. */
function statusOf(code: ErrorCode): number {
  const { closeCode } = errorRow(code);
  const status = closeCode - 4_000;
  if (status === 411) return 403;
  return status >= 400 && status < 600 ? status : 500;
}

/** Answers an HTTP upgrade with a refusal and ends the connection. For servers. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
  const { code } = toZtnaError(error);
  if (socket.writable) {
    socket.end(
      `HTTP/1.1 ${statusOf(code)} Refused\r\n${errorHeader}: ${code}\r\n` +
        'connection: close\r\ncontent-length: 0\r\n\r\n',
    );
  }
  // The other end has a moment to read it; one that never closes is closed.
  const timer = setTimeout(() => socket.destroy(), 1_000);
  timer.unref();
  socket.once('close', () => {
    clearTimeout(timer);
  });
  socket.on('error', () => undefined);
}

/** What a refused upgrade means to the dialler: the code in its header, else what its status says. */
export function refusalOf(response: IncomingMessage): ZtnaError {
  response.resume();
  const named = response.headers[errorHeader];
  if (typeof named === 'string' && isErrorCode(named))
    return new ZtnaError(named, { hop: 'relay' });
  const status = response.statusCode ?? 0;
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message: `the relay answered with status ${status}`,
    hint: 'check that the address is the relay’s and that both sides run versions that fit',
    hop: 'relay',
    reason: 'upgrade_refused',
  });
}
