import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import test from 'ava';
import { bridgeStream, type BridgeOutcome } from '../../../protocol/host/bridge.ts';
import { pattern, TunnelPair } from '../../support/tunnel-pair.ts';
import { TunnelLink } from '../../support/tunnel-link.ts';
import type { ResetCode } from '../../../protocol/frame.ts';

interface Scene {
  /** Connects to the local port and returns both ends: the employee's program and the app. */
  readonly open: () => Promise<readonly [Socket, Socket]>;
  readonly outcomes: { readonly client: BridgeOutcome[]; readonly connector: BridgeOutcome[] };
  /** Resolves when both ends of one bridged connection are gone. */
  readonly bothDone: () => Promise<readonly [BridgeOutcome, BridgeOutcome]>;
  readonly link: TunnelLink;
}

async function listen(onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, onConnection);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

function dial(port: number): Socket {
  return connect({ port, host: '127.0.0.1', allowHalfOpen: true });
}

/** A local port at the client, a real app behind the connector, a tunnel between: every socket a real one. */
async function withScene(run: (scene: Scene) => Promise<void>): Promise<void> {
  const outcomes: Scene['outcomes'] = { client: [], connector: [] };
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    socket.on('error', () => undefined); // tests look at what arrives, and at 'close'
    return socket;
  };
  let notify = Promise.withResolvers<undefined>();
  const note = (side: 'client' | 'connector') => (outcome: BridgeOutcome) => {
    outcomes[side].push(outcome);
    notify.resolve(undefined);
    notify = Promise.withResolvers<undefined>();
  };
  const arrivals: ((socket: Socket) => void)[] = [];
  const app = await listen((socket) => arrivals.shift()?.(keep(socket)));
  const link = await TunnelLink.open({
    onStream: (stream) => {
      bridgeStream(stream, dial(portOf(app)), note('connector'));
    },
  });
  const local = await listen((socket) => {
    bridgeStream(link.client.endpoint.open(), socket, note('client'));
  });
  try {
    await run({
      outcomes,
      link,
      open: async () => {
        const arrived = new Promise<Socket>((resolve) => arrivals.push(resolve));
        const program = keep(dial(portOf(local)));
        return [program, await arrived] as const;
      },
      bothDone: async () => {
        for (;;) {
          const [client] = outcomes.client;
          const [connector] = outcomes.connector;
          if (client !== undefined && connector !== undefined) return [client, connector] as const;
          await notify.promise;
        }
      },
    });
  } finally {
    for (const socket of sockets) socket.destroy();
    local.close();
    app.close();
    await link.close();
  }
}

/** Everything that arrives until the end, and whether that was an end or a reset. */
async function readAll(socket: Socket): Promise<{ bytes: Buffer; how: 'end' | 'reset' }> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  const how = await new Promise<'end' | 'reset'>((resolve) => {
    socket.once('end', () => {
      resolve('end');
    });
    socket.once('error', () => {
      resolve('reset');
    });
  });
  return { bytes: Buffer.concat(chunks), how };
}

test('bridgeStream - half-close from the program: the app reads the end and can still answer', async (t) => {
  await withScene(async ({ open, bothDone }) => {
    const [program, app] = await open();
    program.end('question');
    t.deepEqual(await readAll(app), { bytes: Buffer.from('question'), how: 'end' });
    const answer = readAll(program);
    app.end('answer');
    t.deepEqual(await answer, { bytes: Buffer.from('answer'), how: 'end' });
    t.deepEqual(await bothDone(), ['completed', 'completed']);
  });
});

test('bridgeStream - half-close from the app: the program reads the end and can still send', async (t) => {
  await withScene(async ({ open, bothDone }) => {
    const [program, app] = await open();
    app.end('greeting');
    t.deepEqual(await readAll(program), { bytes: Buffer.from('greeting'), how: 'end' });
    const rest = readAll(app);
    program.write(pattern(1, 0, 500_000));
    program.end();
    const { bytes, how } = await rest;
    t.true(bytes.equals(pattern(1, 0, 500_000)));
    t.is(how, 'end');
    t.deepEqual(await bothDone(), ['completed', 'completed']);
  });
});

test('bridgeStream - a reset by the app reaches the program as a reset, behind an exact prefix', async (t) => {
  for (const bytes of [0, 1, 10_000, 400_000]) {
    await withScene(async ({ open, bothDone }) => {
      const [program, app] = await open();
      const read = readAll(program);
      const sent = pattern(2, 0, bytes);
      app.write(sent, () => app.resetAndDestroy());
      const { bytes: received, how } = await read;
      t.is(how, 'reset');
      t.true(received.equals(sent.subarray(0, received.length)));
      t.deepEqual(await bothDone(), ['reset', 'reset']);
    });
  }
});

test('bridgeStream - a reset by the program reaches the app as a reset, behind an exact prefix', async (t) => {
  for (const bytes of [0, 1, 10_000, 400_000]) {
    await withScene(async ({ open, bothDone }) => {
      const [program, app] = await open();
      const read = readAll(app);
      const sent = pattern(3, 0, bytes);
      program.write(sent, () => program.resetAndDestroy());
      const { bytes: received, how } = await read;
      t.is(how, 'reset');
      t.true(received.equals(sent.subarray(0, received.length)));
      t.deepEqual(await bothDone(), ['reset', 'reset']);
    });
  }
});

test('bridgeStream - a short answer followed by a reset still arrives', async (t) => {
  await withScene(async ({ open }) => {
    const [program, app] = await open();
    const read = readAll(program);
    const hasArrived = once(program, 'data');
    app.write('all there is to say');
    await hasArrived;
    app.resetAndDestroy();
    t.deepEqual(await read, { bytes: Buffer.from('all there is to say'), how: 'reset' });
  });
});

test('bridgeStream - the end of the tunnel is a reset for both sides, never an end', async (t) => {
  await withScene(async ({ open, bothDone, link }) => {
    const [program, app] = await open();
    const reads = Promise.all([readAll(program), readAll(app)]);
    program.write('x');
    await once(app, 'data');
    link.client.close('ERR_TUNNEL_REVOKED', 'device_revoked');
    t.deepEqual(
      (await reads).map(({ how }) => how),
      ['reset', 'reset'],
    );
    t.deepEqual(await bothDone(), ['closed', 'closed']);
  });
});

test('bridgeStream - an app that refuses is a reset of the code refused', async (t) => {
  const unused = await listen(() => undefined);
  const port = portOf(unused);
  unused.close();
  await once(unused, 'close');
  const outcome = Promise.withResolvers<BridgeOutcome>();
  const link = await TunnelLink.open({
    onStream: (stream) => {
      bridgeStream(stream, dial(port), outcome.resolve);
    },
  });
  const reset = Promise.withResolvers<ResetCode>();
  link.client.endpoint.open(Buffer.from('hello')).attach({
    onData: () => undefined,
    onEnd: () => undefined,
    onReset: reset.resolve,
    onWritable: () => undefined,
  });
  t.is(await reset.promise, 'refused');
  t.is(await outcome.promise, 'refused');
  await link.close();
});

test('bridgeStream - a side that does not read holds the other back, and others go on', async (t) => {
  await withScene(async ({ open }) => {
    const [program] = await open(); // its app never reads
    let sentBytes = 0;
    const isStuck = Promise.withResolvers<undefined>();
    const fill = (): void => {
      for (;;) {
        sentBytes += 65_536;
        if (!program.write(Buffer.alloc(65_536))) break;
      }
    };
    program.on('drain', fill);
    fill();
    const [second, secondApp] = await open();
    const read = readAll(secondApp);
    second.end(pattern(7, 0, 5_000_000), () => {
      isStuck.resolve(undefined);
    });
    const { bytes, how } = await read;
    t.true(bytes.equals(pattern(7, 0, 5_000_000)));
    t.is(how, 'end');
    await isStuck.promise;
    // What the kernel's own socket buffers take at four places, and windows and queues of ours.
    t.true(sentBytes < 60_000_000, String(sentBytes));
  });
});

test('bridgeStream - 50 MiB each way, cut at random, arrive bit for bit', async (t) => {
  const total = 52_428_800;
  await withScene(async ({ open, bothDone }) => {
    const [program, app] = await open();
    const digests = await Promise.all([pump(program, app, total, 1), pump(app, program, total, 2)]);
    for (const [sent, received] of digests) t.is(received, sent);
    t.deepEqual(await bothDone(), ['completed', 'completed']);
  });
});

async function pump(
  from: Socket,
  to: Socket,
  total: number,
  seed: number,
): Promise<[string, string]> {
  const sent = createHash('sha256');
  const received = createHash('sha256');
  const done = (async () => {
    for await (const chunk of to as AsyncIterable<Buffer>) received.update(chunk);
  })();
  let left = total;
  for (let size = 1; left > 0; size = (size * 7 + seed) % 200_003) {
    const chunk = Buffer.alloc(Math.min(left, size), seed + (left % 251));
    left -= chunk.length;
    sent.update(chunk);
    if (!from.write(chunk)) await once(from, 'drain');
  }
  from.end();
  await done;
  return [sent.digest('hex'), received.digest('hex')];
}

test('bridgeStream - leaves no listener behind and keeps what waits in few chunks', async (t) => {
  const pair = new TunnelPair();
  const socket = new (class extends PassThrough {
    override _transform(): void {
      // takes the first chunk and never finishes it, as a peer that does not read
    }
  })({ allowHalfOpen: true });
  const before = socket.eventNames().map((name) => [name, socket.listenerCount(name)]);
  const outcome = Promise.withResolvers<BridgeOutcome>();
  bridgeStream(pair.client.open(), socket, outcome.resolve);
  pair.settle();
  for (let i = 0; i < 30_000; i++) {
    pair.served[0]?.stream.write(Buffer.from('x'));
    pair.move(pair.connector, pair.client);
  }
  t.true(socket.writableLength < 30_000, 'small chunks are gathered');
  t.true(socket.writableLength > 0);
  socket.destroy();
  t.is(await outcome.promise, 'closed');
  pair.settle();
  t.deepEqual(
    pair.served[0]?.events.filter((event) => event !== 'writable'),
    ['reset closed'],
  );
  t.deepEqual(
    socket.eventNames().map((name) => [name, socket.listenerCount(name)]),
    before,
  );
});

test('bridgeStream - joins a stream with any duplex, standard input and output for one', async (t) => {
  const pair = new TunnelPair();
  const duplex = new PassThrough({ allowHalfOpen: true }); // what comes out of the tunnel goes back in
  const outcome = Promise.withResolvers<BridgeOutcome>();
  bridgeStream(pair.client.open(), duplex, outcome.resolve);
  pair.settle();
  const [served] = pair.served;
  served?.stream.write(Buffer.from('echo'));
  served?.stream.end();
  pair.settle();
  t.is(await outcome.promise, 'completed');
  pair.settle();
  t.is(served?.bytes.toString(), 'echo');
  t.deepEqual(served?.events, ['end']);
});

test('bridgeStream - a socket that was closed before is a reset', async (t) => {
  const pair = new TunnelPair();
  const duplex = new PassThrough();
  duplex.destroy();
  await once(duplex, 'close');
  const outcome = Promise.withResolvers<BridgeOutcome>();
  const stream = pair.client.open(Buffer.from('x'));
  pair.settle();
  bridgeStream(stream, duplex, outcome.resolve);
  t.is(await outcome.promise, 'closed');
  pair.settle();
  t.deepEqual(pair.served[0]?.events, ['reset closed']);
});
