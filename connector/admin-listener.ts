import type { IncomingMessage, ServerResponse } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { ZtnaError } from '../protocol/index.ts';
import { http, listenTcp } from '../protocol/host/index.ts';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

export interface AdminListenerOptions {
  /** What keeps the connector from being ready, a line each; none when it is. */
  readonly problems: () => readonly string[];
  readonly metrics: () => string;
}

/**
 * Reads `PORT` or `ADDR:PORT`. Throws ERR_CONFIG_USAGE for any address but a loopback one: the connector's host has no
 * port that another machine could reach.
 */
export function parseAdminAddress(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, portText] =
    /^(?:(?:\[([0-9a-f:]+)\]|([^[\]:]+)):)?(\d{1,5})$/i.exec(text) ?? [];
  const host = bracketed ?? plain ?? '127.0.0.1';
  const port = Number(portText);
  const family = isIP(host);
  const isLoopback = family !== 0 && loopback.check(host, family === 4 ? 'ipv4' : 'ipv6');
  if (!portText || port > 65_535 || !isLoopback) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `--admin-listen ${text}: give a loopback address and a port`,
      hint: 'for example --admin-listen 127.0.0.1:9081',
    });
  }
  return { host, port };
}

/** Serves `/livez`, `/readyz` and `/metrics` in plain text, on loopback alone. Throws as `listenTcp`. */
export async function startAdminListener(
  address: { readonly host: string; readonly port: number },
  options: AdminListenerOptions,
): Promise<{ readonly port: number; stop: () => Promise<void> }> {
  const server = http.createServer(
    { maxHeaderSize: 8_192, requestTimeout: 5_000 },
    (request, response) => {
      answer(request, response, options);
    },
  );
  server.on('clientError', (_error, socket) => socket.destroy());
  const listener = await listenTcp({
    ...address,
    onConnection: (socket) => {
      server.emit('connection', socket);
      socket.resume();
    },
  });
  return {
    port: listener.port,
    stop: async () => {
      server.closeAllConnections();
      await listener.stop();
    },
  };
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: AdminListenerOptions,
): void {
  const [status, text] = answerFor(request, options);
  response.writeHead(status, {
    'content-type': 'text/plain; version=0.0.4; charset=utf-8',
    'cache-control': 'no-store',
    connection: 'close',
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}

function answerFor(request: IncomingMessage, options: AdminListenerOptions): [number, string] {
  // A web page that was made to resolve to this machine would name itself here.
  if (!isLoopbackHost(request.headers.host)) return [403, 'not for this host\n'];
  if (request.method !== 'GET' && request.method !== 'HEAD') return [405, 'GET or HEAD\n'];
  switch (request.url ?? '') {
    case '/livez':
      return [200, 'ok\n'];
    case '/readyz': {
      const problems = options.problems();
      if (problems.length === 0) return [200, 'ready\n'];
      return [503, ['not ready', ...problems, ''].join('\n')];
    }
    case '/metrics':
      return [200, options.metrics()];
    default:
      return [404, 'not found\n'];
  }
}

function isLoopbackHost(header: string | undefined): boolean {
  const host = header?.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1') ?? '';
  const family = isIP(host);
  if (family === 0) return host === 'localhost';
  return loopback.check(host, family === 4 ? 'ipv4' : 'ipv6');
}
