import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type TestFn } from 'ava';
import { Deployment, freePort } from '../support/deployment.ts';
import { residentBytes } from '../bench/processes.ts';

/** What the app does with its next connection: set by each test before it dials. */
type Behaviour = (socket: Socket) => void;

interface Context {
  deployment: Deployment;
  port: number;
  closedPort: number;
  server: Server;
  behave: (behaviour: Behaviour) => void;
}
const test = anyTest as TestFn<Context>;

test.before('an app whose behaviour each test sets', async (t) => {
  t.timeout(60_000);
  let behaviour: Behaviour = (socket) => socket.destroy();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    behaviour(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const deployment = await Deployment.start({
    apps: [
      // No checks: one would be the next connection that a test waits for.
      {
        name: 'app',
        target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`,
        health: 'off',
      },
      { name: 'closed', target: `tcp://127.0.0.1:${await freePort()}`, health: 'off' },
    ],
  });
  t.context.deployment = deployment;
  const machine = await deployment.enrol();
  t.context.port = (await deployment.connect(machine, 'app')).port;
  t.context.closedPort = (await deployment.connect(machine, 'closed')).port;
  t.context.server = server;
  t.context.behave = (next) => (behaviour = next);
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
});

interface Received {
  readonly data: Buffer;
  readonly how: 'end' | 'error';
}

/** Reads to the end of a socket: all its bytes, and whether it ended cleanly. */
async function receive(socket: Socket): Promise<Received> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve) => {
    const finish = (how: 'end' | 'error') => () => resolve({ data: Buffer.concat(chunks), how });
    socket.once('end', finish('end'));
    socket.once('error', finish('error'));
    socket.once('close', finish('error'));
  });
}

function dial(port: number): Socket {
  return connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
}

test.serial('half-close - the client ends first and still receives the whole answer', async (t) => {
  const sent = randomBytes(700_000);
  t.context.behave((socket) => {
    void receive(socket).then(({ data }) => socket.end(Buffer.concat([data, Buffer.from('!')])));
  });
  const socket = dial(t.context.port);
  const received = receive(socket);
  socket.end(sent);
  const { data, how } = await received;
  t.is(how, 'end');
  t.true(data.equals(Buffer.concat([sent, Buffer.from('!')])));
});

test.serial(
  'half-close - the app ends first and still receives everything the client sends',
  async (t) => {
    const sent = randomBytes(700_000);
    const atApp = new Promise<Received>((resolve) => {
      t.context.behave((socket) => {
        socket.end('greeting');
        void receive(socket).then(resolve);
      });
    });
    const socket = dial(t.context.port);
    const greeting = await receive(socket);
    t.deepEqual([greeting.data.toString(), greeting.how], ['greeting', 'end']);
    socket.end(sent);
    const { data, how } = await atApp;
    t.is(how, 'end');
    t.true(data.equals(sent));
  },
);

test.serial(
  'reset - by the app after any byte gives a prefix and then an error, never a clean end',
  async (t) => {
    const whole = randomBytes(1 << 20);
    for (const bytes of [0, 1, 1_000, 65_503, 65_504, 300_000, whole.length]) {
      t.context.behave((socket) => {
        socket.once('data', () => {
          if (bytes === 0) socket.resetAndDestroy();
          else
            socket.write(whole.subarray(0, bytes), () =>
              setTimeout(() => socket.resetAndDestroy(), 50),
            );
        });
      });
      const socket = dial(t.context.port);
      const received = receive(socket);
      socket.write('go');
      const { data, how } = await received;
      t.is(how, 'error', `after ${bytes} bytes`);
      t.true(data.equals(whole.subarray(0, data.length)), `after ${bytes} bytes`);
    }
  },
);

test.serial(
  'reset - by the client reaches the app as an error, never as a clean end',
  async (t) => {
    const whole = randomBytes(1 << 20);
    for (const bytes of [1, 65_504, whole.length]) {
      const atApp = new Promise<Received>((resolve) => {
        t.context.behave((socket) => void receive(socket).then(resolve));
      });
      const socket = dial(t.context.port);
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.write(whole.subarray(0, bytes), () => setTimeout(() => socket.resetAndDestroy(), 50));
      const { data, how } = await atApp;
      t.is(how, 'error', `after ${bytes} bytes`);
      t.true(data.equals(whole.subarray(0, data.length)), `after ${bytes} bytes`);
    }
  },
);

test.serial(
  'refusal - an app that refuses shows as a reset and leaves the tunnel usable',
  async (t) => {
    for (let i = 0; i < 3; i++) {
      const refused = await receive(dial(t.context.closedPort));
      t.deepEqual([refused.data.length, refused.how], [0, 'error']);
    }
  },
);

test.serial(
  'never reading - one stalled stream is bounded by its window while others go on',
  async (t) => {
    t.context.behave((socket) => {
      socket.once('data', (first: Buffer) => {
        if (first.toString().startsWith('stall')) socket.pause();
        else {
          socket.write(first);
          socket.on('data', (more) => socket.write(more));
          socket.once('end', () => socket.end());
        }
      });
    });
    const stalled = dial(t.context.port);
    stalled.on('error', () => undefined);
    await once(stalled, 'connect');
    stalled.write('stall');
    const connectorPid = t.context.deployment.connector.child.pid ?? 0;
    const before = residentBytes(connectorPid);
    const megabyte = Buffer.alloc(1 << 20);
    let taken = 0;
    // Push until the local socket has taken nothing more for a while: the stream is stalled from end to end.
    for (let idle = 0; idle < 10;) {
      if (stalled.writableLength === 0) {
        stalled.write(megabyte);
        taken += megabyte.length;
        idle = 0;
      } else idle++;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    t.log(`the stalled stream took ${taken >> 20} MiB before it stood still`);
    t.true(taken < 64 << 20);

    const echoes = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const sent = randomBytes(200_000);
        const socket = dial(t.context.port);
        const received = receive(socket);
        socket.end(sent);
        const { data, how } = await received;
        return how === 'end' && data.equals(sent);
      }),
    );
    t.deepEqual(new Set(echoes), new Set([true]));
    t.true(residentBytes(connectorPid) - before < 160 << 20);
    stalled.destroy();
  },
);

test.serial('bulk - 64 MiB each way at once arrive with equal digests', async (t) => {
  const sent = randomBytes(64 << 20);
  const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex');
  const atApp = new Promise<Received>((resolve) => {
    t.context.behave((socket) => {
      void receive(socket).then(resolve);
      socket.end(sent);
    });
  });
  const socket = dial(t.context.port);
  const received = receive(socket);
  socket.end(sent);
  const [down, up] = await Promise.all([received, atApp]);
  t.deepEqual([down.how, digest(down.data)], ['end', digest(sent)]);
  t.deepEqual([up.how, digest(up.data)], ['end', digest(sent)]);
});
