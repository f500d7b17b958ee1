import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { WebSocket } from 'ws';
import { dataProtocol } from '../messages/data.ts';
import { maxMessageBytes } from '../message.ts';
import { explainDialError, timeoutError } from './dial-error.ts';
import type { Identity } from './identity.ts';
import { abortError, defaultDialTimeoutMs, dialTls } from './tls.ts';
import { refusalOf } from './upgrade.ts';

export interface DialOptions {
  readonly url: string;
  readonly alpn: string;
  /** As `dialTls` says. */
  readonly olderAlpn?: string;
  readonly patienceMs?: number;
  readonly serverRole: 'control-plane' | 'data-plane';
  readonly identity: Pick<Identity, 'tlsKeyPem' | 'certificatePem' | 'bundle'>;
  /** Unix socket in place of TCP. */
  readonly socketPath?: string;
  readonly signal?: AbortSignal;
  /** A connection that `dialTls` has made with these very options, in place of dialling. It is used up. */
  readonly socket?: TLSSocket;
  /** For DNS, TCP, TLS and the upgrade together. */
  readonly timeoutMs?: number;
}

/** The largest message on a data WebSocket: a Noise message or sealed record. */
export const maxDataMessageBytes = 65_535;

/** Options that both ends of every WebSocket share. The payload cap follows from the protocol. */
export function webSocketOptions(alpn: string): { perMessageDeflate: false; maxPayload: number } {
  return {
    perMessageDeflate: false,
    maxPayload: alpn === dataProtocol ? maxDataMessageBytes : maxMessageBytes,
  };
}

/** The TLS connection for a WebSocket alone: whoever makes it ahead of time hands it on as `socket`. Throws as `dialTls`. */
export async function dialForWebSocket(options: DialOptions): Promise<TLSSocket> {
  void import('ws'); // it is needed next, and takes its time the first time
  const { url, alpn, identity, serverRole, timeoutMs, socketPath, signal } = options;
  const { olderAlpn, patienceMs } = options;
  return dialTls({
    url,
    alpn,
    identity,
    trust: { authorities: identity.bundle.authorities, role: serverRole },
    timeoutMs: timeoutMs ?? defaultDialTimeoutMs,
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(signal === undefined ? {} : { signal }),
    ...(olderAlpn === undefined ? {} : { olderAlpn }),
    ...(patienceMs === undefined ? {} : { patienceMs }),
  });
}

/**
 * Dials a WebSocket over mutual TLS. It resolves when the upgrade was answered: only then has the other end
 * accepted our certificate. Nothing is read from it until a `message` or `close` listener is attached, so no
 * message is lost in between; errors after that end in `close` alone.
 *
 * Throws ERR_RELAY_UNREACHABLE with hop and hint; ERR_IDENTITY_ROLE or ERR_IDENTITY_UNAUTHENTICATED when an end
 * is not who it should be; or the code with which the other end refused the upgrade.
 */
export async function dialWebSocket(
  options: DialOptions & { readonly path: string; readonly headers?: Record<string, string> },
): Promise<WebSocket> {
  const { url, alpn, signal } = options;
  const timeoutMs = options.timeoutMs ?? defaultDialTimeoutMs;
  const startedAtMs = performance.now();
  const [socket, { WebSocket: Client }] = await Promise.all([
    options.socket ?? dialForWebSocket(options),
    import('ws'),
  ]);
  // Whoever had the patience to wait for TLS has the usual time for what follows.
  const spentMs = options.patienceMs === undefined ? performance.now() - startedAtMs : 0;
  return new Promise<WebSocket>((resolve, reject) => {
    const target = new URL(options.path, url);
    target.protocol = 'wss:';
    const ws = new Client(target, [], {
      ...webSocketOptions(alpn),
      createConnection: () => socket,
      // Masks protect plaintext proxies; ours is ciphertext inside TLS, and ws skips the work for a zero mask.
      generateMask: (mask) => {
        mask.fill(0);
      },
      ...(options.headers === undefined ? {} : { headers: options.headers }),
    });
    const timer = setTimeout(
      () => {
        fail(timeoutError());
      },
      Math.max(1, timeoutMs - spentMs),
    );
    const onAbort = () => {
      fail(abortError(signal));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();

    function settle(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      ws.off('error', fail);
      ws.off('unexpected-response', onRefused);
    }
    function fail(error: unknown): void {
      settle();
      ws.on('error', () => undefined);
      ws.terminate();
      socket.destroy();
      reject(explainDialError(error, { url, stage: 'upgrade' }));
    }
    function onRefused(_request: unknown, response: IncomingMessage): void {
      fail(refusalOf(response));
    }
    ws.on('error', fail);
    ws.on('unexpected-response', onRefused);
    ws.once('open', () => {
      settle();
      ws.on('error', () => undefined); // `close` follows; without a listener it would end the process.
      holdUntilListening(ws);
      resolve(ws);
    });
  });
}

/**
 * Whoever awaits the dial goes on a turn after `open`; a message in the same segment would be emitted before. So
 * reading waits for the first listener that could care.
 */
function holdUntilListening(ws: WebSocket): void {
  ws.pause();
  const onListener = (event: string | symbol) => {
    if (event !== 'message' && event !== 'close') return;
    ws.off('newListener', onListener);
    ws.resume();
  };
  ws.on('newListener', onListener);
}
