import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import test from 'ava';
import { resetSocket } from '../../../protocol/host/index.ts';

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

async function socketPair(): Promise<Pair> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const far = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const [[near]] = (await Promise.all([once(server, 'connection'), once(far, 'connect')])) as [
    [Socket],
    unknown,
  ];
  server.close();
  near.on('error', () => undefined);
  return { near, far };
}

/** What the other side sees last; one that has read an end learns of the reset by writing. */
function endOf(far: Socket): Promise<string> {
  return new Promise((resolve) => {
    far.on('end', () => void far.write('more'));
    far.on('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? 'error');
    });
    far.on('close', () => {
      resolve('closed');
    });
  });
}

const endings: readonly (readonly [string, (near: Socket) => Promise<void> | void])[] = [
  ['that is open', () => undefined],
  ['whose end was sent in this very turn', (near) => void near.end()],
  ['whose last bytes and end were sent in this very turn', (near) => void near.end('last')],
  [
    'whose end is out',
    async (near) => {
      near.end();
      await once(near, 'finish');
    },
  ],
  ['with much before its end that nobody reads', (near) => void near.end(Buffer.alloc(16_777_216))],
];

for (const [title, prepare] of endings) {
  test(`resetSocket - a connection ${title} is gone, and its peer sees a reset`, async (t) => {
    const { near, far } = await socketPair();
    const end = endOf(far);
    await prepare(near);
    const closed = once(near, 'close');
    resetSocket(near);
    await closed;
    far.resume();
    t.regex(await end, /^(?:ECONNRESET|EPIPE)$/);
  });
}

test('resetSocket - a connection that is gone already stays so', async (t) => {
  const { near, far } = await socketPair();
  near.destroy();
  await once(near, 'close');
  resetSocket(near);
  t.true(near.destroyed);
  far.destroy();
});
