import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { WebSocket } from 'ws';
import {
  newId,
  relayListSchema,
  signStatement,
  type FromRelay,
  type ListedRelay,
  type RelayId,
} from '../../../protocol/index.ts';
import {
  ControlClock,
  createLogger,
  KnownRelays,
  RevocationFeed,
  type Identity,
} from '../../../protocol/host/index.ts';
import { ControlLinks } from '../../../relay/data-plane/control-links.ts';
import { startTestServer, type TestServer } from '../../support/control-server.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const relay = newId('relay');
const logger = createLogger({ program: 'test', write: () => undefined });
const ownUrl = 'https://127.0.0.1:2';

/** A control plane that greets data planes and keeps what they say. */
class ControlPlane {
  readonly heard: FromRelay[] = [];
  socket: WebSocket | undefined;
  server!: TestServer;
  #wake: () => void = () => undefined;

  static async start(t: ExecutionContext, socketPath?: string): Promise<ControlPlane> {
    const plane = new ControlPlane();
    plane.server = await startTestServer({
      pki,
      ...(socketPath === undefined ? {} : { socketPath }),
      onSocket: (ws) => {
        plane.#greet(ws);
      },
    });
    t.teardown(() => plane.server.stop());
    return plane;
  }

  #greet(ws: WebSocket): void {
    this.socket = ws;
    ws.on('message', (data: Buffer) => {
      const message = JSON.parse(data.toString()) as FromRelay;
      if (message.type === 'time') {
        const statement = pki.signTime(message.nonce, Date.now());
        ws.send(JSON.stringify({ type: 'time', statement }));
        return;
      }
      this.heard.push(message);
      if (message.type === 'hello') {
        ws.send(JSON.stringify({ type: 'welcome', version: 2, relay, bundle: null }));
      }
      this.#wake();
    });
  }

  async hears(type: FromRelay['type'], times = 1): Promise<void> {
    while (this.heard.filter((message) => message.type === type).length < times) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

function listed(url: string, id: RelayId = newId('relay')): ListedRelay {
  return { id, url, isControl: true, isDraining: false };
}

function startLinks(
  t: ExecutionContext,
  identity: Partial<Identity>,
  relays: ListedRelay[],
  controlSocket?: string,
): {
  readonly links: ControlLinks;
  readonly take: (relays: ListedRelay[], version: number) => void;
} {
  const known = new KnownRelays({ bundle: () => pki.bundle, logger });
  const take = (list: ListedRelay[], version: number) => {
    const value = { version, relays: list };
    known.take(signStatement('relays', relayListSchema, value, pki.grantKey));
  };
  if (relays.length > 0) take(relays, 1);
  const clock = new ControlClock();
  const links = new ControlLinks({
    identity: () =>
      ({
        ...pki.dialIdentity(`ztna://data-plane/${relay}`),
        id: relay,
        profile: {},
        ...identity,
      }) as Identity,
    controlSocket,
    known,
    clock,
    feed: new RevocationFeed({ audience: relay, clock }),
    tunnels: () => [],
    standing: () => [],
    onLeases: () => undefined,
    onEntry: () => undefined,
    onBundle: () => undefined,
    onLog: () => undefined,
    logger,
    software: 'test',
  });
  links.start();
  t.teardown(() => {
    links.stop();
  });
  return { links, take };
}

test('control links - a relay that joined speaks to the control plane beside it and to the one it was enrolled at', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-links-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const socketPath = join(dir, 'control.sock');
  const [beside, other] = [await ControlPlane.start(t, socketPath), await ControlPlane.start(t)];
  const identity = { relayUrl: other.server.url, profile: { url: ownUrl } };
  startLinks(t, identity, [listed(other.server.url), listed(ownUrl, relay)], socketPath);
  await Promise.all([beside.hears('hello'), other.hears('hello')]);
  t.pass();
});

test('control links - a data plane alone dials where it was enrolled, then every control plane of the list', async (t) => {
  const [a, b] = [await ControlPlane.start(t), await ControlPlane.start(t)];
  const { links, take } = startLinks(t, { relayUrl: a.server.url }, []);
  await a.hears('hello');
  take([listed(a.server.url), listed(b.server.url)], 1);
  await b.hears('hello');
  while (links.openCount < 2) await new Promise((resolve) => setImmediate(resolve));
  t.is(a.heard.filter(({ type }) => type === 'hello').length, 1);

  const end = {
    type: 'tunnel_closed',
    tunnel: newId('tunnel'),
    code: 'ERR_TUNNEL_CLOSED',
    reason: 'test',
    bytesUp: 0,
    bytesDown: 0,
  } as const;
  links.send(end);
  await Promise.all([a.hears('tunnel_closed'), b.hears('tunnel_closed')]);

  const { socket } = b;
  if (!socket) throw new Error('no socket');
  const gone = once(socket, 'close');
  take([listed(a.server.url)], 2);
  await gone;
  t.is(links.openCount, 1);
});
