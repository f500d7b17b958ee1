import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import {
  connect as connectTls,
  createServer as createTlsServer,
  type ConnectionOptions,
} from 'node:tls';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { dataProtocol } from '../../../protocol/index.ts';
import { createLogger } from '../../../protocol/host/index.ts';
import { FrontDoor } from '../../../relay/data-plane/front-door.ts';
import { clientHelloFor } from '../../support/client-hello.ts';
import { RelayRig, type Credentials } from '../../support/relay-rig.ts';

async function dialRaw(rig: RelayRig): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: rig.plane.port, allowHalfOpen: true });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

function closed(socket: Socket): Promise<void> {
  socket.resume();
  return new Promise((resolve) => {
    if (socket.destroyed) resolve();
    socket.once('end', () => {
      socket.destroy();
    });
    socket.once('close', () => {
      resolve();
    });
  });
}

/** Everything one side says until it half-closes. */
async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('latin1');
}

test('front door - hands another protocol on untouched behind a PROXY line, with both half-closes', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const hello = await clientHelloFor('http/1.1');
  const handed = new Promise<{ socket: Socket; first: Buffer }>((resolve) => {
    rig.control.onRaw = (socket, first) => {
      resolve({ socket, first });
    };
  });
  const client = connect({ host: '127.0.0.1', port: rig.plane.port, allowHalfOpen: true });
  await once(client, 'connect');
  const { localPort = 0 } = client;
  client.write(hello.subarray(0, 7));
  await turn();
  client.write(hello.subarray(7));
  client.end('and more');
  const { socket, first } = await handed;
  t.is(
    rig.control.proxied.at(-1),
    `PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} ${rig.plane.port}\r\n`,
  );
  const seen = first.toString('latin1') + (await readAll(socket));
  t.is(seen, hello.toString('latin1') + 'and more');
  // The client has ended its side; the other still works.
  const answer = 'x'.repeat(3_000_000);
  socket.end(answer);
  t.is(await readAll(client), answer);
});

test('front door - leaves nothing behind when either side cuts the connection', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const hello = await clientHelloFor('http/1.1');
  for (const cut of ['client', 'control'] as const) {
    const handed = new Promise<Socket>((resolve) => {
      rig.control.onRaw = resolve;
    });
    const client = await dialRaw(rig);
    client.write(hello);
    const socket = await handed;
    const ended = closed(cut === 'client' ? socket : client);
    if (cut === 'client') client.resetAndDestroy();
    else socket.destroy();
    await ended;
  }
  t.pass();
});

test('front door - closes what is not TLS and what exceeds the cap, and tells it nothing', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const record = Buffer.concat([Buffer.from([22, 3, 1, 0x3f, 0xff]), Buffer.alloc(0x3fff)]);
  record[5] = 1;
  record.writeUIntBE(0xffffff, 6, 3); // a ClientHello of 16 MiB
  for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.concat([record, record])]) {
    const socket = await dialRaw(rig);
    const said = readAll(socket).catch(() => '');
    socket.write(bytes);
    t.is(await said, '');
  }
  t.is(rig.control.proxied.length, 0);
});

test('front door - drops a stalled ClientHello and a stalled handshake', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const hello = await clientHelloFor(dataProtocol);
  const silent = await dialRaw(rig);
  const partial = await dialRaw(rig);
  partial.write(hello.subarray(0, 100));
  const unfinished = await dialRaw(rig);
  unfinished.write(hello);
  await Promise.all([silent, partial, unfinished].map(closed));
  t.pass();
});

test('front door - drops a client that ends TLS and then sends no whole request', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { tlsKeyPem: key, certificatePem: cert, bundle } = rig.device;
  const client = connectTls({
    host: '127.0.0.1',
    port: rig.plane.port,
    ALPNProtocols: [dataProtocol],
    key,
    cert,
    ca: [...bundle.authorities],
  });
  client.on('error', () => undefined);
  await once(client, 'secureConnect');
  client.write('GET /v1/tunnel HTTP/1.1\r\nhost: a\r\n');
  await closed(client);
  t.pass();
});

test('front door - admits a ClientHello that comes byte by byte', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { tlsKeyPem: key, certificatePem: cert, bundle } = rig.device;
  // A proxy in between hands the first 300 bytes on one at a time.
  const slow = createServer((socket) => {
    const upstream = connect({ host: '127.0.0.1', port: rig.plane.port, noDelay: true });
    upstream.pipe(socket);
    socket.on('error', () => undefined);
    upstream.on('error', () => undefined);
    let sent = 0;
    socket.on('data', (chunk: Buffer) => {
      for (const byte of chunk) {
        if (sent++ < 300) upstream.write(Buffer.from([byte]));
      }
      if (sent > 300) upstream.write(chunk.subarray(Math.max(0, chunk.length - (sent - 300))));
    });
  });
  slow.listen(0, '127.0.0.1');
  await once(slow, 'listening');
  t.teardown(() => slow.close());
  const client = connectTls({
    host: '127.0.0.1',
    port: (slow.address() as { port: number }).port,
    ALPNProtocols: [dataProtocol],
    key,
    cert,
    ca: [...bundle.authorities],
  });
  await once(client, 'secureConnect');
  t.is(client.alpnProtocol, dataProtocol);
  t.is(client.getProtocol(), 'TLSv1.3');
  client.destroy();
});

/** True when the data plane lets these credentials as far as an answered request. */
async function isAnswered(rig: RelayRig, credentials: Partial<Credentials>): Promise<boolean> {
  const { tlsKeyPem: key, certificatePem: cert } = credentials;
  const client = connectTls({
    host: '127.0.0.1',
    port: rig.plane.port,
    ALPNProtocols: [dataProtocol],
    ca: [...rig.bundle.authorities],
    ...(key === undefined || cert === undefined ? {} : { key, cert }),
  });
  client.on('error', () => undefined);
  client.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
  const answer = await readAll(client).catch(() => '');
  client.destroy();
  return answer.startsWith('HTTP/1.1 404');
}

test('front door - demands a certificate of our own CA that has not expired', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const other = await RelayRig.start();
  t.teardown(() => other.stop());
  const dayMs = 86_400_000;
  const expired = await rig.credentials('device', rig.authority.device, {
    nowMs: Date.now() - 2 * dayMs,
    lifeMs: dayMs,
  });
  t.true(await isAnswered(rig, rig.device));
  t.false(await isAnswered(rig, {}));
  t.false(await isAnswered(rig, other.device));
  t.false(await isAnswered(rig, expired));
  const refusals = () => rig.control.received.filter(({ type }) => type === 'admission_refused');
  await rig.control.until(() => refusals().length === 3);
  for (const refusal of refusals()) {
    t.like(refusal, { code: 'ERR_IDENTITY_UNAUTHENTICATED', peer: null, address: '127.0.0.1' });
  }
});

/** Whether a second connection with the first one's session skips the certificates. */
async function resumes(options: ConnectionOptions): Promise<boolean> {
  const first = connectTls(options);
  first.on('error', () => undefined);
  const session = new Promise<Buffer | undefined>((resolve) => {
    first.once('session', resolve);
    first.once('close', () => {
      resolve(undefined);
    });
  });
  first.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
  await readAll(first).catch(() => '');
  const known = await session;
  if (!known) return false;
  const second = connectTls({ ...options, session: known });
  second.on('error', () => undefined);
  await once(second, 'secureConnect');
  const isReused = second.isSessionReused();
  second.destroy();
  return isReused;
}

test('front door - never resumes a TLS session, which would outlive its certificate', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { tlsKeyPem: key, certificatePem: cert, bundle } = rig.device;
  const ca = [...bundle.authorities];
  const dial = { host: '127.0.0.1', ALPNProtocols: [dataProtocol], key, cert, ca };
  t.false(await resumes({ ...dial, port: rig.plane.port }));

  // A server with Node's defaults resumes: the check can fail.
  const { certificatePem } = await rig.credentials('data-plane', rig.authority.relay);
  const lax = createTlsServer(
    { key, cert: certificatePem, ca, requestCert: true, ALPNProtocols: [dataProtocol] },
    (socket) => socket.end('done'),
  );
  lax.listen(0, '127.0.0.1');
  await once(lax, 'listening');
  t.teardown(() => lax.close());
  t.true(await resumes({ ...dial, port: (lax.address() as { port: number }).port }));
});

test('front door - strangers of one address are cut beyond a number, and those who prove who they are do not count', async (t) => {
  const taken: Socket[] = [];
  const door = await FrontDoor.open({
    host: '127.0.0.1',
    port: 0,
    dialControl: () => Promise.reject(new Error('none')),
    onData: (socket) => taken.push(socket),
    logger: createLogger({ program: 'test', write: () => undefined }),
    strangers: { burst: 2, perSecond: 1e-6 },
  });
  t.teardown(() => door.stop());
  const hello = await clientHelloFor(dataProtocol);
  /** True when the door reads what this address has to say. */
  const isTaken = async (localAddress: string): Promise<boolean> => {
    const before = taken.length;
    const socket = connect({ host: '127.0.0.1', port: door.port, localAddress });
    socket.on('error', () => undefined);
    socket.write(hello);
    const cut = closed(socket).then(() => 'cut');
    while (taken.length === before) {
      if ((await Promise.race([cut, turn('open')])) === 'cut') return false;
    }
    return true;
  };
  t.true(await isTaken('127.0.0.1'));
  t.true(await isTaken('127.0.0.1'));
  t.false(await isTaken('127.0.0.1'));
  t.true(await isTaken('127.0.0.2'));
  door.authenticated('127.0.0.1');
  t.true(await isTaken('127.0.0.1'));
  t.false(await isTaken('127.0.0.1'));
});
