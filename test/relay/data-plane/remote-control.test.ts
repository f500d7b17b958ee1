import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import {
  forwardProtocol,
  newId,
  relayListSchema,
  signStatement,
  ZtnaError,
  type ListedRelay,
} from '../../../protocol/index.ts';
import {
  createLogger,
  KnownRelays,
  secureServerOptions,
  type Identity,
} from '../../../protocol/host/index.ts';
import { readProxyLine } from '../../../relay/data-plane/forward-server.ts';
import { dialRemoteControl } from '../../../relay/data-plane/remote-control.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const id = newId('relay');
const identity = {
  ...pki.dialIdentity(`ztna://data-plane/${id}`),
  id,
  relayUrl: 'https://127.0.0.1:1',
} as unknown as Identity;
const logger = createLogger({ program: 'test', write: () => undefined });
const ends = {
  remoteAddress: '203.0.113.7',
  remotePort: 4711,
  localAddress: '198.51.100.1',
  localPort: 443,
};

async function listen(t: ExecutionContext, server: Server, port = 0): Promise<string> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A relay with a control plane: keeps what is handed on to it. */
async function startRelay(t: ExecutionContext, role = 'data-plane', port = 0) {
  const handedOn: string[] = [];
  const server = createTlsServer(
    secureServerOptions({
      ...pki.ca.issue({
        uris: [`ztna://${role}/${role === 'data-plane' ? newId('relay') : 'cp'}`],
      }),
      clientAuthorities: [pki.ca.certificatePem],
      alpn: [forwardProtocol],
    }),
    (socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => {
        handedOn.push(chunk.toString());
        socket.write('taken');
      });
    },
  );
  return { url: await listen(t, server, port), handedOn };
}

function knowing(...urls: string[]): KnownRelays {
  const relays = urls.map((url): ListedRelay => ({
    id: newId('relay'),
    url,
    isControl: true,
    isDraining: false,
  }));
  const known = new KnownRelays({ bundle: () => pki.bundle, logger });
  known.take(signStatement('relays', relayListSchema, { version: 1, relays }, pki.grantKey));
  return known;
}

async function taken(socket: Socket): Promise<void> {
  await new Promise<void>((resolve) => socket.once('data', () => resolve()));
}

test('remote control - goes past a relay that refuses and one that is silent, and tells whose connection it is', async (t) => {
  const refusing = createServer();
  const refused = await listen(t, refusing);
  await new Promise((resolve) => refusing.close(resolve));
  const silent = await listen(t, createServer());
  const good = await startRelay(t);
  const dial = dialRemoteControl({
    identity: () => identity,
    known: knowing(refused, silent, good.url),
    logger,
  });
  for (let round = 0; round < 2; round++) {
    const socket = await dial(ends, new AbortController().signal);
    await taken(socket);
    socket.destroy();
  }
  const [line = ''] = good.handedOn;
  t.deepEqual(readProxyLine(line.trimEnd()), ends);
  t.is(good.handedOn.length, 2);
});

test('remote control - believes no other role in the relay’s place, and dials no relay without a control plane', async (t) => {
  const posing = await startRelay(t, 'control-plane');
  const other = await startRelay(t);
  const known = new KnownRelays({ bundle: () => pki.bundle, logger });
  const relays: ListedRelay[] = [
    { id: newId('relay'), url: posing.url, isControl: true, isDraining: false },
    { id: newId('relay'), url: other.url, isControl: false, isDraining: false },
    { id, url: other.url, isControl: true, isDraining: false }, // itself
  ];
  known.take(signStatement('relays', relayListSchema, { version: 1, relays }, pki.grantKey));
  const dial = dialRemoteControl({ identity: () => identity, known, logger });
  await t.throwsAsync(dial(ends, new AbortController().signal), { code: 'ERR_IDENTITY_ROLE' });
  t.deepEqual([posing.handedOn, other.handedOn], [[], []]);
});

test('remote control - connections wait for a relay that refuses until it takes them, or until they are given up', async (t) => {
  const parked = createServer();
  const url = await listen(t, parked);
  await new Promise((resolve) => parked.close(resolve));
  const dial = dialRemoteControl({ identity: () => identity, known: knowing(url), logger });
  const givenUp = new AbortController();
  const lost = t.throwsAsync<ZtnaError>(dial(ends, givenUp.signal), { instanceOf: ZtnaError });
  const waiting = [1, 2, 3].map(() => dial(ends, new AbortController().signal));
  givenUp.abort();
  t.is((await lost).reason, 'aborted');
  const relay = await startRelay(t, 'data-plane', Number(new URL(url).port));
  for (const socket of await Promise.all(waiting)) {
    await taken(socket);
    socket.destroy();
  }
  t.is(relay.handedOn.length, 3);
});

test('readProxyLine - takes our own form alone', (t) => {
  const line = 'PROXY TCP4 203.0.113.7 198.51.100.1 4711 443';
  t.deepEqual(readProxyLine(line), ends);
  t.truthy(readProxyLine('PROXY TCP6 2001:db8::1 2001:db8::2 1 65535'));
  for (const bad of [
    'PROXY UNKNOWN',
    'PROXY TCP4 203.0.113.7 198.51.100.1 4711',
    'PROXY TCP4 2001:db8::1 2001:db8::2 1 2',
    'PROXY TCP6 203.0.113.7 198.51.100.1 1 2',
    'PROXY TCP4 203.0.113.7 198.51.100.1 4711 65536',
    `${line} more`,
    ` ${line}`,
    `${line}\nGET /`,
    'GET / HTTP/1.1',
    '',
  ]) {
    t.is(readProxyLine(bad), undefined, bad);
  }
});
