import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import test from 'ava';
import { ZtnaError } from '../../../../protocol/index.ts';
import {
  maxProxyLineBytes,
  parseProxyLine,
  readProxyLine,
} from '../../../../relay/control-plane/listener/proxy-line.ts';

test('parseProxyLine - reads both families', (t) => {
  t.deepEqual(parseProxyLine('PROXY TCP4 203.0.113.7 198.51.100.1 40000 443'), {
    address: '203.0.113.7',
    port: 40_000,
  });
  t.is(parseProxyLine('PROXY TCP6 2001:db8::7 2001:db8::1 40000 443').address, '2001:db8::7');
});

test('parseProxyLine - refuses what is not one', (t) => {
  for (const line of [
    '',
    'PROXY',
    'proxy TCP4 203.0.113.7 198.51.100.1 40000 443',
    'PROXY TCP4 203.0.113.7 198.51.100.1 40000',
    'PROXY TCP4 203.0.113.7 198.51.100.1 40000 443 x',
    'PROXY TCP4 2001:db8::7 2001:db8::1 40000 443',
    'PROXY TCP6 203.0.113.7 198.51.100.1 40000 443',
    'PROXY TCP4 203.0.113.777 198.51.100.1 40000 443',
    'PROXY TCP4 203.0.113.7 198.51.100.1 65536 443',
    'PROXY TCP4 203.0.113.7 198.51.100.1 0400 443',
    'PROXY TCP4  203.0.113.7 198.51.100.1 443',
  ]) {
    t.throws(() => parseProxyLine(line), { instanceOf: ZtnaError }, line);
  }
});

/** Sends `parts` one after another and answers what `readProxyLine` made of them. */
async function read(parts: readonly (string | Buffer)[]) {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    accepted.resolve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  client.setNoDelay(true);
  client.on('error', () => undefined);
  const socket = await accepted.promise;
  const reading = readProxyLine(socket, 2_000);
  reading.catch(() => undefined);
  for (const part of parts) {
    client.write(part);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return {
    reading,
    rest: async (bytes: number) => {
      let seen = '';
      socket.on('data', (chunk: Buffer) => (seen += chunk.toString('latin1')));
      while (seen.length < bytes) await once(socket, 'data');
      return seen;
    },
    close: () => {
      client.destroy();
      socket.destroy();
      server.close();
    },
  };
}

test('readProxyLine - takes the line alone, however it is cut, and leaves what follows', async (t) => {
  const text = 'PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\nhello';
  for (const at of [1, 5, 20, 46, 47, 48, text.length]) {
    const { reading, rest, close } = await read([text.slice(0, at), text.slice(at)]);
    t.is((await reading).address, '203.0.113.7');
    t.is(await rest(5), 'hello');
    close();
  }
});

test('readProxyLine - a connection that begins with TLS is from this host', async (t) => {
  const hello = Buffer.from([0x16, 3, 1, 0, 5]);
  const { reading, rest, close } = await read([hello]);
  t.is((await reading).address, 'local');
  t.is(await rest(5), hello.toString('latin1'));
  close();
});

test('readProxyLine - refuses more than a line may be and another beginning', async (t) => {
  for (const text of ['PROXY TCP4 ' + '1'.repeat(maxProxyLineBytes), 'GET / HTTP/1.1\r\n']) {
    const { reading, close } = await read([text]);
    await t.throwsAsync(reading, { code: 'ERR_MESSAGE_MALFORMED' });
    close();
  }
});

test('readProxyLine - gives up on a silent connection', async (t) => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [socket] = (await once(server, 'connection')) as [Socket];
  await t.throwsAsync(readProxyLine(socket, 20), { code: 'ERR_HANDSHAKE_TIMEOUT' });
  client.destroy();
  socket.destroy();
  server.close();
});
