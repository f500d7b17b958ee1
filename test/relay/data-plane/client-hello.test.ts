import { connect as connectTls } from 'node:tls';
import { createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import test from 'ava';
import fc from 'fast-check';
import { readClientHello } from '../../../relay/data-plane/client-hello.ts';

/** The ClientHello that Node's own TLS sends. */
async function realHello(protocols: string[], servername = 'relay.example.com'): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = connectTls({ host: '127.0.0.1', port, ALPNProtocols: protocols, servername });
  client.on('error', () => undefined);
  const [socket] = (await once(server, 'connection')) as [Socket];
  socket.on('error', () => undefined);
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

/** The same handshake message cut into records of `size` bytes. */
function inRecords(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += size) {
    const fragment = message.subarray(at, at + size);
    records.push(Buffer.from([22, 3, 1, fragment.length >> 8, fragment.length & 0xff]), fragment);
  }
  return Buffer.concat(records);
}

test('readClientHello - reads the protocols of a real ClientHello', async (t) => {
  const hello = await realHello(['ztna-data/1', 'http/1.1']);
  t.deepEqual(readClientHello(hello), {
    state: 'complete',
    protocols: ['ztna-data/1', 'http/1.1'],
  });
});

test('readClientHello - is incomplete at every proper prefix, over several records', async (t) => {
  const hello = await realHello(['ztna-data/1']);
  for (const size of [64, 100, 16_384]) {
    const bytes = inRecords(hello, size);
    for (let length = 0; length < bytes.length; length++) {
      t.is(readClientHello(bytes.subarray(0, length)).state, 'incomplete');
    }
    t.deepEqual(readClientHello(bytes), { state: 'complete', protocols: ['ztna-data/1'] });
  }
});

test('readClientHello - refuses more records than any client would make of one', async (t) => {
  const bytes = inRecords(await realHello(['ztna-data/1']), 1);
  t.is(readClientHello(bytes.subarray(0, 6 * 64)).state, 'incomplete');
  t.is(readClientHello(bytes).state, 'refused');
});

test('readClientHello - refuses what is not TLS at its first byte', (t) => {
  for (const text of [
    'GET / HTTP/1.1\r\n',
    'SSH-2.0-OpenSSH_9\r\n',
    'PROXY TCP4 ',
    '\x80\x2e\x01',
  ]) {
    t.is(readClientHello(Buffer.from(text, 'latin1')).state, 'refused');
    t.is(readClientHello(Buffer.from(text.slice(0, 1), 'latin1')).state, 'refused');
  }
});

test('readClientHello - refuses other records, other messages, empty and oversized fragments', async (t) => {
  const hello = await realHello(['ztna-data/1']);
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(hello);
    copy[at] = value;
    return readClientHello(copy).state;
  };
  t.is(changed(0, 23), 'refused'); // application data
  t.is(changed(1, 2), 'refused'); // SSL 2
  t.is(changed(5, 2), 'refused'); // ServerHello
  t.is(readClientHello(Buffer.from([22, 3, 1, 0, 0])).state, 'refused');
  t.is(readClientHello(Buffer.from([22, 3, 1, 0x40, 1])).state, 'refused');
});

test('readClientHello - refuses lengths that do not add up', async (t) => {
  const hello = await realHello(['ztna-data/1']);
  const at = hello.indexOf('ztna-data/1');
  for (const [offset, delta] of [
    [-1, 1],
    [-1, -1],
    [-2, 1],
    [-3, 1],
    [-5, 1],
  ] as const) {
    const copy = Buffer.from(hello);
    copy[at + offset] = (copy[at + offset] ?? 0) + delta;
    t.is(readClientHello(copy).state, 'refused', `${offset} ${delta}`);
  }
});

test('readClientHello - never throws, and never changes its mind as more bytes come', async (t) => {
  const hello = await realHello(['ztna-data/1', 'h2']);
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 600 }),
    fc
      .array(fc.tuple(fc.nat(hello.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
      .map((changes) => {
        const copy = Buffer.from(hello);
        for (const [at, value] of changes) copy[at] = value;
        return copy;
      }),
  );
  fc.assert(
    fc.property(bytes, fc.nat(600), (all, cut) => {
      const early = readClientHello(all.subarray(0, cut));
      const late = readClientHello(all);
      if (early.state !== 'incomplete') t.deepEqual(late, early);
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});
