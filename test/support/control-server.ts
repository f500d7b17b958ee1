import { randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { WebSocketServer, type WebSocket } from 'ws';
import { newId } from '../../protocol/id.ts';
import { controlProtocol } from '../../protocol/messages/data.ts';
import { peerIdentity } from '../../protocol/host/peer.ts';
import { secureServerOptions } from '../../protocol/host/tls.ts';
import { refuseUpgrade } from '../../protocol/host/upgrade.ts';
import type { TestCertificate, TestPki } from './pki.ts';

export interface TestServerOptions {
  readonly pki: TestPki;
  readonly certificate?: TestCertificate;
  readonly alpn?: string;
  readonly onSocket?: (ws: WebSocket) => void;
  /** Refuses the upgrade with this. */
  readonly refusal?: unknown;
  readonly socketPath?: string;
}

export interface TestServer {
  readonly url: string;
  readonly server: Server;
  stop(): Promise<void>;
}

/** A real TLS WebSocket server in the place of a control plane or data plane. */
export async function startTestServer(options: TestServerOptions): Promise<TestServer> {
  const { pki, alpn = controlProtocol } = options;
  const certificate =
    options.certificate ??
    pki.ca.issue({ uris: ['ztna://control-plane/cp'], uses: ['serverAuth'] });
  const server = createServer(
    secureServerOptions({
      ...certificate,
      clientAuthorities: [pki.ca.certificatePem],
      alpn: [alpn],
    }),
  );
  const sockets = new Set<Duplex>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => undefined);
  const upgrader = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  server.on('upgrade', (request, socket, head) => {
    if (options.refusal !== undefined) {
      refuseUpgrade(socket, options.refusal);
      return;
    }
    if (request.socket instanceof TLSSocket) peerIdentity(request.socket);
    upgrader.handleUpgrade(request, socket, head, (ws) => {
      ws.on('error', () => undefined);
      options.onSocket?.(ws);
    });
  });
  await new Promise<void>((resolve) => {
    if (options.socketPath === undefined) server.listen(0, '127.0.0.1', resolve);
    else server.listen(options.socketPath, resolve);
  });
  const port = options.socketPath === undefined ? (server.address() as AddressInfo).port : 443;
  return {
    url: `https://127.0.0.1:${port}`,
    server,
    stop: async () => {
      const closed = new Promise<void>((resolve) =>
        server.close(() => {
          resolve();
        }),
      );
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Behaves as a control plane towards a device: welcome, time; hands everything else to `onMessage`. */
export function actAsControlPlane(
  ws: WebSocket,
  pki: TestPki,
  hooks: {
    readonly welcome?: Record<string, unknown>;
    readonly timeMs?: () => number;
    readonly signTime?: (nonce: string) => string;
    readonly onMessage?: (message: Record<string, unknown>) => void;
  } = {},
): void {
  ws.on('message', (data) => {
    const message = JSON.parse((data as Buffer).toString()) as Record<string, unknown>;
    if (message['type'] === 'hello') {
      const welcome = {
        type: 'welcome',
        version: 1,
        device: newId('device'),
        bundle: null,
        session: null,
      };
      ws.send(JSON.stringify({ ...welcome, ...hooks.welcome }));
    } else if (message['type'] === 'time') {
      const nonce = String(message['nonce']);
      const statement =
        hooks.signTime?.(nonce) ?? pki.signTime(nonce, hooks.timeMs?.() ?? Date.now());
      ws.send(JSON.stringify({ type: 'time', statement }));
    } else hooks.onMessage?.(message);
  });
}

export function newNonce(): string {
  return randomBytes(16).toString('base64url');
}
