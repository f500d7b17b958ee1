import { connect, type Socket } from 'node:net';
import { resetSocket } from '../../protocol/host/index.ts';
import { proxyLine, type Endpoints } from './address.ts';
import { limits } from './limits.ts';

/**
 * Hands a connection on, undecrypted, to the control plane's socket: one PROXY line, the bytes read so far, then
 * everything both ways with its half-closes. `onEnd` runs once, when nothing of it is left.
 */
export function forward(
  client: Socket,
  ends: Endpoints,
  firstBytes: Buffer,
  socketPath: string,
  onEnd: (error: Error | undefined) => void,
): void {
  const control = connect({ path: socketPath, allowHalfOpen: true });
  let open = 2;
  let failure: Error | undefined;
  const isGone = () => {
    if (--open === 0) onEnd(failure);
  };
  const fail = (error: Error) => {
    failure ??= error;
    // A reset on one side must not look like an orderly end on the other.
    resetSocket(client);
    control.destroy();
  };
  const timer = setTimeout(() => {
    fail(new Error('the control plane did not accept the connection'));
  }, limits.forwardConnectMs);
  control.once('connect', () => {
    clearTimeout(timer);
    control.write(proxyLine(ends));
    control.write(firstBytes);
    client.pipe(control);
    control.pipe(client);
  });
  control.once('close', () => {
    clearTimeout(timer);
    if (!control.readableEnded || !control.writableFinished) client.destroy();
    isGone();
  });
  client.once('close', () => {
    if (!client.readableEnded || !client.writableFinished) control.destroy();
    isGone();
  });
  client.on('error', fail);
  control.on('error', fail);
}
