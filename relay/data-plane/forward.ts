import { connect, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { abortError, resetSocket } from '../../protocol/host/index.ts';
import { proxyLine, type Endpoints } from './address.ts';
import { limits } from './limits.ts';

/** Connects to a control plane and writes the PROXY line that names the client. Rejects when the signal aborts. */
export type ControlDial = (ends: Endpoints, signal: AbortSignal) => Promise<Socket>;

/** The way to the control plane on this host: its unix socket. */
export function dialLocalControl(path: string): ControlDial {
  return (ends, signal) =>
    new Promise((resolve, reject) => {
      const control = connect({ path, allowHalfOpen: true });
      const settle = () => {
        signal.removeEventListener('abort', onAbort);
        control.off('error', fail);
      };
      const fail = (error: Error) => {
        settle();
        control.on('error', () => undefined);
        control.destroy();
        reject(error);
      };
      const onAbort = () => {
        fail(abortError(signal));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      control.on('error', fail);
      control.once('connect', () => {
        settle();
        control.write(proxyLine(ends));
        resolve(control);
      });
      if (signal.aborted) onAbort();
    });
}

/**
 * Hands a connection on, undecrypted, to a control plane: one PROXY line, the bytes read so far, then everything both
 * ways with its half-closes. `onEnd` runs once, when nothing of it is left.
 */
export function forward(
  client: Socket,
  ends: Endpoints,
  firstBytes: Buffer,
  dial: ControlDial,
  onEnd: (error: Error | undefined) => void,
): void {
  const gone = new AbortController();
  let control: Socket | undefined;
  let open = 1;
  let failure: Error | undefined;
  const isGone = () => {
    if (--open === 0) onEnd(failure);
  };
  const fail = (error: Error) => {
    failure ??= error;
    // A reset on one side must not look like an orderly end on the other.
    if (client instanceof TLSSocket) client.destroy();
    else resetSocket(client);
    control?.destroy();
  };
  client.on('error', fail);
  client.once('close', () => {
    gone.abort();
    if (!client.readableEnded || !client.writableFinished) control?.destroy();
    isGone();
  });
  const signal = AbortSignal.any([gone.signal, AbortSignal.timeout(limits.forwardConnectMs)]);
  dial(ends, signal).then((dialled) => {
    if (client.destroyed) {
      dialled.on('error', () => undefined);
      dialled.destroy();
      return;
    }
    control = dialled;
    open++;
    dialled.on('error', fail);
    dialled.once('close', () => {
      if (!dialled.readableEnded || !dialled.writableFinished) client.destroy();
      isGone();
    });
    dialled.write(firstBytes);
    client.pipe(dialled);
    dialled.pipe(client);
  }, fail);
}
