/**
 * The floor that the data plane's memory is compared with: WebSockets over mutual TLS in one process, nothing else.
 *
 *   bare-websockets.ts server CA CERT KEY          prints its port, then accepts; `ready N` for each line on stdin
 *   bare-websockets.ts client CA CERT KEY PORT N   opens N and prints `ready N`; ends with standard input
 */
import { constants } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';

const [side, caPath = '', certificatePath = '', keyPath = '', port, count] = process.argv.slice(2);
const tls = {
  ca: readFileSync(caPath),
  cert: readFileSync(certificatePath),
  key: readFileSync(keyPath),
  minVersion: 'TLSv1.3',
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const;

if (side === 'server') {
  const server = createServer({ ...tls, requestCert: true });
  new WebSocketServer({ server, perMessageDeflate: false, maxPayload: 65_535 });
  server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
} else {
  const sockets: WebSocket[] = [];
  for (let i = 0; i < Number(count); i++) {
    const socket = new WebSocket(`wss://127.0.0.1:${port}/`, { ...tls, perMessageDeflate: false });
    await once(socket, 'open');
    sockets.push(socket);
  }
  console.log(`ready ${sockets.length}`);
}
process.stdin.resume().once('end', () => process.exit(0));
