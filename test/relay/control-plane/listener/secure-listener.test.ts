import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { aheadProtocol, controlProtocol, newId } from '../../../../protocol/index.ts';
import { createLogger, dialTls, type Identity } from '../../../../protocol/host/index.ts';
import {
  startSecureListener,
  type SecureListenerOptions,
} from '../../../../relay/control-plane/listener/secure-listener.ts';
import { clientHelloFor } from '../../../support/client-hello.ts';
import { TestPki } from '../../../support/pki.ts';

const pki = new TestPki();
const device = pki.dialIdentity(`ztna://device/${newId('device')}`);
const connector = pki.dialIdentity(`ztna://connector/${newId('connector')}`);

type DialIdentity = Pick<Identity, 'tlsKeyPem' | 'certificatePem' | 'bundle'>;

/** One newcomer at a time, and one of those that go ahead; a turn ends by what its owner does alone. */
const oneByOne = {
  newcomers: { atOnce: 1, waiting: 8, waitMs: 600_000 },
  pages: { atOnce: 1, waiting: 8, waitMs: 600_000 },
  ahead: { atOnce: 1, waiting: 8, waitMs: 600_000 },
  handshakeMs: 600_000,
  deviceMs: 600_000,
  pagesMs: 600_000,
};

/** A listener behind what stands for a data plane. */
class Front {
  readonly refused: string[] = [];
  readonly endTurns: (() => void)[] = [];
  port = 0;

  static async start(
    t: ExecutionContext,
    turns: NonNullable<SecureListenerOptions['turns']> = oneByOne,
  ): Promise<Front> {
    const front = new Front();
    const dir = await mkdtemp(join(tmpdir(), 'ztna-listener-'));
    const socketPath = join(dir, 'control', 's');
    const { keyPem, certificatePem } = pki.ca.issue({
      uris: ['ztna://control-plane/cp'],
      uses: ['serverAuth'],
    });
    const listener = await startSecureListener({
      socketPath,
      keyPem,
      certificatePem,
      authorities: [pki.ca.certificatePem],
      logger: createLogger({ program: 'test', write: () => undefined }),
      onControl: (_peer, _request, socket, _head, endTurn) => {
        front.endTurns.push(endTurn);
        socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n');
      },
      onEnrolment: () => undefined,
      onRefused: (reason) => front.refused.push(reason),
      turns,
    });
    const sockets = new Set<Socket>();
    const server = createServer((client) => {
      const control = connect(socketPath);
      for (const socket of [client, control]) {
        sockets.add(socket);
        socket.on('error', () => undefined);
      }
      control.write('PROXY TCP4 203.0.113.7 203.0.113.1 40000 443\r\n');
      client.pipe(control).pipe(client);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    front.port = (server.address() as AddressInfo).port;
    t.teardown(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await listener.stop();
      await rm(dir, { recursive: true });
    });
    return front;
  }

  async dial(identity: DialIdentity, alpn: string, signal?: AbortSignal) {
    const socket = await dialTls({
      url: `https://127.0.0.1:${this.port}`,
      alpn,
      identity,
      trust: { authorities: identity.bundle.authorities, role: 'control-plane' },
      timeoutMs: 60_000,
      ...(signal && { signal }),
    });
    socket.on('error', () => undefined);
    return socket;
  }

  /** As far as the answer to an upgrade. */
  async enter(identity: DialIdentity, alpn: string) {
    const socket = await this.dial(identity, alpn);
    socket.write(
      'GET /v1/channel HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
    );
    await once(socket, 'data');
    return socket;
  }

  /** Begins a handshake, which is answered, and goes no further. */
  async stall(protocol = controlProtocol): Promise<Socket> {
    const socket = connect({ host: '127.0.0.1', port: this.port });
    socket.on('error', () => undefined);
    socket.write(await clientHelloFor(protocol));
    await once(socket, 'data');
    return socket;
  }
}

test('listener - a connector goes ahead of the devices that wait for their turn', async (t) => {
  const front = await Front.start(t);
  const stalled = await front.stall();
  const order: string[] = [];
  const waiting = front.dial(device, controlProtocol).then(() => order.push('device'));
  await front.enter(connector, aheadProtocol);
  order.push('connector');
  stalled.destroy();
  await waiting;
  t.deepEqual(order, ['connector', 'device']);
});

test('listener - browsers wait for one another, and no device for them', async (t) => {
  const front = await Front.start(t);
  await front.stall('http/1.1');
  const next = connect({ host: '127.0.0.1', port: front.port });
  next.on('error', () => undefined);
  const order: string[] = [];
  next.once('data', () => order.push('browser'));
  next.write(await clientHelloFor('http/1.1'));
  await front.enter(device, controlProtocol);
  order.push('device');
  t.deepEqual(order, ['device']);
});

test('listener - a device that comes by the name of those it waits for is refused', async (t) => {
  const front = await Front.start(t);
  const socket = await front.dial(device, aheadProtocol);
  socket.resume();
  await once(socket, 'close');
  t.deepEqual(front.refused, ['role_wrong']);
  t.is(front.endTurns.length, 0);
  // Its turn is over: others go ahead as before.
  await front.enter(connector, aheadProtocol);
  t.is(front.endTurns.length, 1);
});

test('listener - the next device begins when the one before says that it is done, and not with its handshake', async (t) => {
  const front = await Front.start(t);
  await front.enter(device, controlProtocol);
  const order: string[] = [];
  const waiting = front.dial(device, controlProtocol).then(() => order.push('next'));
  // A turn of the listener and more, in which the next would come if nothing held it.
  await front.enter(connector, aheadProtocol);
  order.push('done');
  front.endTurns[0]?.();
  await waiting;
  t.deepEqual(order, ['done', 'next']);
});

test('listener - whoever stalls in a handshake holds the others up for the time of a turn alone', async (t) => {
  const front = await Front.start(t, { ...oneByOne, handshakeMs: 1, pagesMs: 1 });
  await front.stall();
  await front.stall();
  await front.dial(device, controlProtocol);
  await front.stall('http/1.1');
  await front.stall('http/1.1'); // is answered, and so had its turn
  t.pass();
});
