import { once } from 'node:events';
import { connect } from 'node:net';
import test from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { listenTcp } from '../../../protocol/host/tcp.ts';

test('listenTcp - accepts, allows half-close, and leaves nothing when stopped', async (t) => {
  const listener = await listenTcp({
    host: '127.0.0.1',
    port: 0,
    onConnection: (socket) => {
      socket.on('end', () => socket.end('after your end'));
      socket.resume();
    },
  });
  const socket = connect({ port: listener.port, host: listener.address, allowHalfOpen: true });
  socket.end('mine');
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  t.is(Buffer.concat(chunks).toString(), 'after your end');

  const open = connect({ port: listener.port, host: listener.address });
  open.on('error', () => undefined);
  await once(open, 'connect');
  const closed = once(open, 'close');
  await listener.stop();
  await listener.stop();
  await closed;
  const late = connect({ port: listener.port, host: listener.address });
  await t.throwsAsync(once(late, 'connect'), { code: 'ECONNREFUSED' });
});

test('listenTcp - names who holds a busy port', async (t) => {
  const first = await listenTcp({ host: '127.0.0.1', port: 0, onConnection: () => undefined });
  t.teardown(() => first.stop());
  const second = listenTcp({ host: '127.0.0.1', port: first.port, onConnection: () => undefined });
  const error = await t.throwsAsync<ZtnaError>(second, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_CLIENT_PORT_BUSY');
  if (process.platform === 'linux')
    t.regex(error.message, new RegExp(`by node \\(pid ${process.pid}\\)`));
});

test('listenTcp - refuses an address that is not this machine’s', async (t) => {
  const listening = listenTcp({ host: '192.0.2.1', port: 0, onConnection: () => undefined });
  await t.throwsAsync(listening, { code: 'ERR_CONFIG_INVALID' });
});
