import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';

export interface RawDial extends Pick<
  ConnectionOptions,
  'key' | 'cert' | 'session' | 'minVersion' | 'maxVersion'
> {
  readonly port: number;
  readonly alpn: string;
  /** Sent once the client's side of TLS is done. */
  readonly request: string | Buffer;
}

/** What a TLS server did with a client. */
export interface RawOutcome {
  /** Everything that it answered, as Latin-1. */
  readonly answer: string;
  /** Why the client's TLS ended, in Node's words; null where it ended without an error. */
  readonly error: string | null;
  readonly isSessionReused: boolean;
  /** What the client would offer next time: the server's last ticket, where one came. */
  readonly session: Buffer | undefined;
}

/** An upgrade to a WebSocket as bytes. */
export function upgradeRequest(path: string, headers: readonly string[] = []): string {
  return [
    `GET ${path} HTTP/1.1`,
    'host: 127.0.0.1',
    'connection: Upgrade',
    'upgrade: websocket',
    'sec-websocket-version: 13',
    'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==',
    ...headers,
    '\r\n',
  ].join('\r\n');
}

/** Dials without verifying anything, sends the request and reads until the server closes or its answer's head is there. */
export function dialRaw({ port, alpn, request, ...tls }: RawDial): Promise<RawOutcome> {
  return new Promise((resolve) => {
    const socket: TLSSocket = connect({
      port,
      host: '127.0.0.1',
      ALPNProtocols: [alpn],
      rejectUnauthorized: false,
      ...tls,
    });
    let answer = '';
    let error: string | null = null;
    let isSessionReused = false;
    let session: Buffer | undefined;
    socket.on('session', (ticket: Buffer) => (session = ticket));
    socket.on('secureConnect', () => {
      isSessionReused = socket.isSessionReused();
      socket.write(request);
    });
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
      session ??= socket.getSession();
      if (answer.includes('\r\n\r\n')) socket.end();
    });
    socket.on('error', (failure: NodeJS.ErrnoException) => {
      error ??= failure.code ?? failure.message;
    });
    socket.once('close', () => {
      resolve({ answer, error, isSessionReused, session });
    });
  });
}
