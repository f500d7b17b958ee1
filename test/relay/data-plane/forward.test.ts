import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { dialLocalControl } from '../../../relay/data-plane/forward.ts';

const ends = {
  remoteAddress: '203.0.113.7',
  remotePort: 40_000,
  localAddress: '203.0.113.1',
  localPort: 443,
} as const;

async function socketPath(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-forward-'));
  t.teardown(() => rm(dir, { recursive: true }));
  return join(dir, 's');
}

test('local control - a connection waits for a control plane that is not there yet', async (t) => {
  const path = await socketPath(t);
  const dialling = dialLocalControl(path)(ends, new AbortController().signal);
  const first = Promise.withResolvers<string>();
  const server = createServer((socket: Socket) => {
    // The one that only looked says nothing.
    socket.once('data', (bytes: Buffer) => {
      first.resolve(bytes.toString('latin1'));
      socket.destroy();
    });
    socket.on('error', () => undefined);
  });
  t.teardown(() => server.close());
  // By then the first attempt has failed.
  await new Promise((next) => setImmediate(next));
  server.listen(path);
  await once(server, 'listening');
  const control = await dialling;
  control.on('error', () => undefined);
  t.is(await first.promise, 'PROXY TCP4 203.0.113.7 203.0.113.1 40000 443\r\n');
  control.destroy();
});

test('local control - whoever leaves waits no more', async (t) => {
  const gone = new AbortController();
  const dialling = dialLocalControl(await socketPath(t))(ends, gone.signal);
  setImmediate(() => {
    gone.abort();
  });
  await t.throwsAsync(dialling);
});
