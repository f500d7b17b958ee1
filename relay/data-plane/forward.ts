import { connect, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { abortError, resetSocket, systemCode } from '../../protocol/host/index.ts';
import { proxyLine, type Endpoints } from './address.ts';
import { Comeback } from './comeback.ts';
import { limits } from './limits.ts';

/** Connects to a control plane and writes the PROXY line that names the client. Rejects when the signal aborts. */
export type ControlDial = (ends: Endpoints, signal: AbortSignal) => Promise<Socket>;

/**
 * The way to the control plane on this host: its unix socket. While that is not there, or its queue is full, a
 * connection waits: whoever were cut off instead would be back at once, and cost more.
 */
export function dialLocalControl(path: string): ControlDial {
  const connectOnce = connectLocal(path);
  const comeback = new Comeback(async (signal) => {
    (await connectOnce(signal)).destroy();
  });
  return async (ends, signal) => {
    for (;;) {
      try {
        const control = await connectOnce(signal);
        control.write(proxyLine(ends));
        return control;
      } catch (error) {
        if (signal.aborted || !passing.has(systemCode(error) ?? '')) throw error;
      }
      await comeback.wait(signal);
    }
  };
}

/** What a unix socket says that is not there, not served, or whose queue is full. */
const passing = new Set(['ENOENT', 'ECONNREFUSED', 'EAGAIN']);

function connectLocal(path: string): (signal: AbortSignal) => Promise<Socket> {
  return (signal) =>
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
