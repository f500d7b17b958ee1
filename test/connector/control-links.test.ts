import { once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import type { WebSocket } from 'ws';
import {
  newId,
  relayListSchema,
  signStatement,
  ZtnaError,
  type FromConnector,
} from '../../protocol/index.ts';
import {
  ControlClock,
  createLogger,
  KnownRelays,
  type Identity,
} from '../../protocol/host/index.ts';
import { ControlLinks } from '../../connector/control-links.ts';
import { IdentityKeeper } from '../../connector/identity-keeper.ts';
import { startTestServer, type TestServer } from '../support/control-server.ts';
import { TestPki } from '../support/pki.ts';

const pki = new TestPki();
const connector = newId('connector');
const logger = createLogger({ program: 'test', write: () => undefined });

/** A control plane that only greets and listens. */
class ControlPlane {
  readonly heard: FromConnector[] = [];
  readonly sockets: WebSocket[] = [];
  readonly #wake = new Set<() => void>();
  server!: TestServer;

  static async start(t: ExecutionContext): Promise<ControlPlane> {
    const plane = new ControlPlane();
    plane.server = await startTestServer({
      pki,
      onSocket: (ws) => {
        plane.#greet(ws);
      },
    });
    t.teardown(() => plane.server.stop());
    return plane;
  }

  get url(): string {
    return this.server.url;
  }

  #greet(ws: WebSocket): void {
    this.sockets.push(ws);
    ws.on('message', (data: Buffer) => {
      const message = JSON.parse(data.toString()) as FromConnector;
      if (message.type === 'time') {
        const statement = pki.signTime(message.nonce, Date.now());
        ws.send(JSON.stringify({ type: 'time', statement }));
        return;
      }
      this.heard.push(message);
      if (message.type === 'hello') {
        const welcome = { type: 'welcome', version: 2, connector, name: 'local', bundle: null };
        ws.send(JSON.stringify({ ...welcome, appIds: [], relays: [], slots: 0 }));
      }
      for (const wake of [...this.#wake]) wake();
    });
  }

  async hears(matches: (message: FromConnector) => boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      const look = () => {
        if (!this.heard.some(matches)) return;
        this.#wake.delete(look);
        resolve();
      };
      this.#wake.add(look);
      look();
    });
  }
}

function listOf(version: number, ...planes: ControlPlane[]): string {
  const relays = planes.map(({ url }) => ({
    id: newId('relay'),
    url,
    isControl: true,
    isDraining: false,
  }));
  return signStatement('relays', relayListSchema, { version, relays }, pki.grantKey);
}

function startLinks(t: ExecutionContext, enrolledAt: string) {
  const identity = {
    ...pki.dialIdentity(`ztna://connector/${connector}`),
    id: connector,
    relayUrl: enrolledAt,
  } as unknown as Identity;
  const known = new KnownRelays({ bundle: () => pki.bundle, logger });
  const links = new ControlLinks({
    known,
    enrolledAt,
    link: {
      keeper: new IdentityKeeper({ dir: '/nowhere', identity, logger, onRevoked: () => undefined }),
      instance: newId('instance'),
      software: 'test',
      clock: new ControlClock(),
      appNames: () => [],
      openTunnels: () => [],
      logger,
      onAppIds: () => undefined,
      onLeases: () => undefined,
      onLog: () => undefined,
      onRelays: () => undefined,
    },
    onOpen: () => undefined,
    onLost: () => undefined,
    onWaiting: () => undefined,
    isFatal: ({ code }) => code === 'ERR_IDENTITY_REVOKED',
    logger,
  });
  const ending = new AbortController();
  const running = links.run(ending.signal);
  running.catch(() => undefined);
  t.teardown(() => {
    ending.abort();
  });
  return { links, known, running, ending };
}

const isHello = ({ type }: FromConnector) => type === 'hello';

function closed(reason: string): Extract<FromConnector, { type: 'tunnel_closed' }> {
  const tunnel = newId('tunnel');
  return {
    type: 'tunnel_closed',
    tunnel,
    code: 'ERR_TUNNEL_CLOSED',
    reason,
    bytesUp: 0,
    bytesDown: 0,
  };
}

const isClosed = (reason: string) => (message: FromConnector) =>
  message.type === 'tunnel_closed' && message.reason === reason;

test('ControlLinks - holds a channel where it was enrolled until a list is known, then one to each control plane', async (t) => {
  const [a, b] = await Promise.all([ControlPlane.start(t), ControlPlane.start(t)]);
  const { links, known } = startLinks(t, a.url);
  await a.hears(isHello);
  known.take(listOf(1, a, b));
  await b.hears(isHello);
  t.is(a.heard.filter(isHello).length, 1); // the first channel stayed
  t.deepEqual(
    links.states.map(({ url }) => url),
    [a.url, b.url],
  );
});

test('ControlLinks - tells each control plane what happened, one that was away as soon as it is back', async (t) => {
  const [a, b] = await Promise.all([ControlPlane.start(t), ControlPlane.start(t)]);
  const { links, known } = startLinks(t, a.url);
  known.take(listOf(1, a, b));
  await Promise.all([a.hears(isHello), b.hears(isHello)]);
  while (links.open.length < 2) await new Promise((resolve) => setImmediate(resolve));
  links.tell(closed('first'));
  await Promise.all([a.hears(isClosed('first')), b.hears(isClosed('first'))]);

  const lost = links.open.find(({ url }) => url === b.url)?.lost;
  b.sockets[0]?.terminate();
  await lost;
  await new Promise((resolve) => setImmediate(resolve));
  links.tell(closed('second'));
  await Promise.all([a.hears(isClosed('second')), b.hears(isClosed('second'))]);
  t.is(a.heard.filter(isClosed('second')).length, 1);
  t.is(b.heard.filter(isClosed('second')).length, 1);
  t.is(b.heard.filter(isHello).length, 2);
});

test('ControlLinks - leaves a control plane that the list leaves out', async (t) => {
  const [a, b] = await Promise.all([ControlPlane.start(t), ControlPlane.start(t)]);
  const { links, known } = startLinks(t, a.url);
  known.take(listOf(1, a, b));
  await Promise.all([a.hears(isHello), b.hears(isHello)]);
  const [socket] = b.sockets;
  if (!socket) throw new Error('no socket');
  const gone = once(socket, 'close');
  known.take(listOf(2, a));
  await gone;
  t.deepEqual(
    links.states.map(({ url }) => url),
    [a.url],
  );
});

test('ControlLinks - end with what no redial mends, whichever control plane says so', async (t) => {
  const [a, b] = await Promise.all([ControlPlane.start(t), ControlPlane.start(t)]);
  const { links, known, running } = startLinks(t, a.url);
  known.take(listOf(1, a, b));
  await Promise.all([a.hears(isHello), b.hears(isHello)]);
  b.sockets[0]?.close(4410, 'ERR_IDENTITY_REVOKED');
  await t.throwsAsync(running, { instanceOf: ZtnaError, code: 'ERR_IDENTITY_REVOKED' });
  t.deepEqual(links.states, []);
});
