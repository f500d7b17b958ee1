import { once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import type { WebSocket } from 'ws';
import { ZtnaError } from '../../../protocol/errors.ts';
import { newId } from '../../../protocol/id.ts';
import { controlProtocol } from '../../../protocol/messages/data.ts';
import {
  fromDevice,
  toDevice,
  type FromDevice,
  type ToDevice,
} from '../../../protocol/messages/device.ts';
import { ControlClock } from '../../../protocol/host/clock.ts';
import {
  ControlChannel,
  type ControlChannelOptions,
} from '../../../protocol/host/control-channel.ts';
import { createLogger } from '../../../protocol/host/log.ts';
import { actAsControlPlane, startTestServer } from '../../support/control-server.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const identity = pki.dialIdentity(`ztna://device/${newId('device')}`);
const logger = createLogger({ program: 'test', write: () => undefined });

type Options = ControlChannelOptions<ToDevice, FromDevice>;
type Hooks = Parameters<typeof actAsControlPlane>[2];

async function serve(
  t: ExecutionContext,
  behave: (ws: WebSocket) => void,
): Promise<Pick<Options, 'dial'>> {
  const server = await startTestServer({ pki, onSocket: behave });
  t.teardown(() => server.stop());
  const dial = { url: server.url, alpn: controlProtocol, serverRole: 'control-plane', identity };
  return { dial } as const as Pick<Options, 'dial'>;
}

async function open(
  t: ExecutionContext,
  served: Pick<Options, 'dial'>,
  changes: Partial<Options> = {},
): Promise<ControlChannel<ToDevice, FromDevice>> {
  const controller = new AbortController();
  t.teardown(() => {
    controller.abort();
  });
  return ControlChannel.open<ToDevice, FromDevice>({
    ...served,
    fromSchema: fromDevice,
    toSchema: toDevice,
    hello: {
      type: 'hello',
      versions: { min: 1, max: 1 },
      software: 'test',
      bundleVersion: 1,
      tunnels: [],
    },
    clock: new ControlClock(),
    bundle: () => pki.bundle,
    onMessage: () => undefined,
    logger,
    signal: controller.signal,
    ...changes,
  });
}

function controlPlane(hooks: Hooks = {}): (ws: WebSocket) => void {
  return (ws) => {
    actAsControlPlane(ws, pki, hooks);
  };
}

async function refused(t: ExecutionContext, opening: Promise<unknown>): Promise<ZtnaError> {
  return t.throwsAsync<ZtnaError>(opening, { instanceOf: ZtnaError });
}

test('ControlChannel - is open once it was welcomed and knows the time', async (t) => {
  const timeMs = Date.now() + 600_000; // a machine whose clock is ten minutes behind
  const clock = new ControlClock();
  const served = await serve(t, controlPlane({ timeMs: () => timeMs }));
  t.throws(() => clock.require(), { code: 'ERR_RELAY_UNAVAILABLE' });
  const channel = await open(t, served, { clock });
  t.is(channel.welcome.type, 'welcome');
  t.true(clock.require() >= timeMs);
  t.true(clock.require() < timeMs + 60_000);
});

test('ControlChannel - sends the first requests behind hello, without waiting for the welcome', async (t) => {
  const seen: string[] = [];
  const served = await serve(t, (ws) => {
    ws.on('message', (data) => {
      const message = JSON.parse((data as Buffer).toString()) as { type: string; id?: number };
      seen.push(message.type);
      if (message.id !== 2) return;
      const welcome = { type: 'welcome', version: 1, device: newId('device') };
      ws.send(JSON.stringify({ ...welcome, bundle: null, session: null }));
      const refusal = { message: null, fix: null, ref: null };
      ws.send(JSON.stringify({ type: 'refusal', id: 2, code: 'ERR_POLICY_DENIED', ...refusal }));
      ws.send(JSON.stringify({ type: 'otp_secret', id: 1, uri: 'otpauth://1' }));
      ws.send(JSON.stringify({ type: 'time', statement: pki.signTime(nonce, Date.now()) }));
    });
    let nonce = '';
    ws.prependListener('message', (data) => {
      nonce ||= (JSON.parse((data as Buffer).toString()) as { nonce?: string }).nonce ?? '';
    });
  });
  const channel = await open(t, served, {
    requests: [{ type: 'otp_begin' }, { type: 'grant', app: 'wiki' }],
  });
  t.deepEqual(seen, ['hello', 'time', 'otp_begin', 'grant']);
  const [first, second] = channel.answers;
  t.is((await first)?.type, 'otp_secret');
  await t.throwsAsync(second!, { code: 'ERR_POLICY_DENIED' });
});

test('ControlChannel - gives each answer to its own request', async (t) => {
  const held: { ws: WebSocket; id: number }[] = [];
  const served = await serve(t, (ws) => {
    actAsControlPlane(ws, pki, {
      onMessage: ({ id }) => {
        held.push({ ws, id: Number(id) });
        if (held.length < 2) return;
        for (const { id } of held.reverse()) {
          ws.send(JSON.stringify({ type: 'otp_secret', id, uri: `otpauth://${id}` }));
        }
      },
    });
  });
  const channel = await open(t, served);
  const answers = await Promise.all([
    channel.request({ type: 'otp_begin' }),
    channel.request({ type: 'otp_begin' }),
  ]);
  t.deepEqual(
    answers.map((answer) => (answer.type === 'otp_secret' ? answer.uri : answer.type)),
    ['otpauth://1', 'otpauth://2'],
  );
});

test('ControlChannel - throws a refusal with its code, message, fix and ref', async (t) => {
  const ref = newId('decision');
  const served = await serve(t, (ws) => {
    actAsControlPlane(ws, pki, {
      onMessage: ({ id }) => {
        const refusal = { type: 'refusal', id, code: 'ERR_POSTURE_UNHEALTHY' };
        ws.send(JSON.stringify({ ...refusal, message: 'disk is open', fix: 'turn on LUKS', ref }));
      },
    });
  });
  const channel = await open(t, served);
  const error = await refused(t, channel.request({ type: 'grant', app: 'wiki' }));
  t.is(error.code, 'ERR_POSTURE_UNHEALTHY');
  t.is(error.message, 'disk is open');
  t.is(error.hint, 'turn on LUKS');
  t.is(error.ref, ref);
});

test('ControlChannel - a request without an answer ends in time and its late answer harms nobody', async (t) => {
  let answerLate: (() => void) | undefined;
  const served = await serve(t, (ws) => {
    actAsControlPlane(ws, pki, {
      onMessage: ({ id }) => {
        if (id === 1) answerLate = () => ws.send(JSON.stringify({ type: 'done', id }));
        else ws.send(JSON.stringify({ type: 'done', id }));
      },
    });
  });
  const channel = await open(t, served);
  t.is((await refused(t, channel.request({ type: 'sign_out' }, 30))).reason, 'request_timeout');
  const second = channel.request({ type: 'sign_out' });
  answerLate?.();
  t.is((await second).type, 'done');
});

test('ControlChannel - closes on an answer to a request that was never made', async (t) => {
  const served = await serve(t, (ws) => {
    actAsControlPlane(ws, pki);
    ws.once('message', () => ws.send(JSON.stringify({ type: 'done', id: 7 })));
  });
  const error = await refused(t, open(t, served));
  t.is(error.code, 'ERR_MESSAGE_UNEXPECTED');
});

test('ControlChannel - hands leases and log entries over raw, in order and only once it is open', async (t) => {
  const served = await serve(t, (ws) => {
    actAsControlPlane(ws, pki);
    ws.once('message', () => {
      ws.send(JSON.stringify({ type: 'log', statement: 'log.1' }));
      ws.send(JSON.stringify({ type: 'leases', statement: 'lease.2' }));
    });
  });
  const seen: string[] = [];
  const both = Promise.withResolvers<undefined>();
  let isOpen = false;
  await open(t, served, {
    onMessage: (message) => {
      seen.push(`${isOpen ? 'open' : 'early'} ${message.type}`);
      if (seen.length === 2) both.resolve(undefined);
    },
  });
  isOpen = true;
  await both.promise;
  t.deepEqual(seen, ['open log', 'open leases']);
});

test('ControlChannel - believes a newer bundle of its root and refuses an older one', async (t) => {
  let toPeer: WebSocket | undefined;
  const served = await serve(t, (ws) => {
    toPeer = ws;
    actAsControlPlane(ws, pki, { welcome: { bundle: pki.signBundle({ version: 5 }) } });
  });
  const versions: number[] = [];
  const channel = await open(t, served, {
    onBundle: (bundle) => {
      versions.push(bundle.version);
    },
  });
  t.deepEqual(versions, [5]);
  const stale = pki.signBundle({ version: 4 });
  toPeer?.send(JSON.stringify({ type: 'bundle', statement: stale }));
  t.is((await channel.closed).code, 'ERR_STATEMENT_REFUSED');
});

test('ControlChannel - refuses a bundle of another root', async (t) => {
  const other = new TestPki();
  const served = await serve(
    t,
    controlPlane({ welcome: { bundle: other.signBundle({ version: 9 }) } }),
  );
  t.is((await refused(t, open(t, served))).code, 'ERR_STATEMENT_REFUSED');
});

test('ControlChannel - refuses a time that was signed for another nonce', async (t) => {
  const other = Buffer.alloc(16).toString('base64url');
  const served = await serve(t, controlPlane({ signTime: () => pki.signTime(other, Date.now()) }));
  t.is((await refused(t, open(t, served))).code, 'ERR_STATEMENT_REFUSED');
});

for (const [what, send] of [
  ['a binary message', (ws: WebSocket) => ws.send(Buffer.from('{"type":"done","id":1}'))],
  ['a text that is no JSON', (ws: WebSocket) => ws.send('hello')],
  ['an unknown type', (ws: WebSocket) => ws.send('{"type":"root_shell"}')],
  ['a second welcome', (ws: WebSocket) => ws.send(JSON.stringify(welcome()))],
] as const) {
  test(`ControlChannel - closes on ${what}`, async (t) => {
    let peer: WebSocket | undefined;
    const served = await serve(t, (ws) => {
      peer = ws;
      actAsControlPlane(ws, pki);
    });
    const channel = await open(t, served);
    const closing = once(peer as WebSocket, 'close') as Promise<[number, Buffer]>;
    send(peer as WebSocket);
    const error = await channel.closed;
    t.true(['ERR_MESSAGE_MALFORMED', 'ERR_MESSAGE_UNEXPECTED'].includes(error.code));
    const [closeCode, text] = await closing;
    t.is(closeCode, 4400);
    t.is(text.toString(), error.code);
  });
}

function welcome() {
  return { type: 'welcome', version: 1, device: newId('device'), bundle: null, session: null };
}

test('ControlChannel - refuses a version it did not offer', async (t) => {
  const served = await serve(t, controlPlane({ welcome: { version: 2 } }));
  t.is((await refused(t, open(t, served))).code, 'ERR_HANDSHAKE_VERSION');
});

test('ControlChannel - refuses anything before the welcome', async (t) => {
  const served = await serve(t, (ws) => {
    ws.send(JSON.stringify({ type: 'done', id: 1 }));
  });
  t.is((await refused(t, open(t, served))).code, 'ERR_MESSAGE_UNEXPECTED');
});

test('ControlChannel - tells why the control plane closed it, and ends what was asked', async (t) => {
  let peer: WebSocket | undefined;
  const served = await serve(t, (ws) => {
    peer = ws;
    actAsControlPlane(ws, pki, {
      onMessage: () => {
        peer?.close(4410, 'ERR_IDENTITY_REVOKED');
      },
    });
  });
  const channel = await open(t, served);
  t.is((await refused(t, channel.request({ type: 'status' }))).code, 'ERR_IDENTITY_REVOKED');
  t.is((await channel.closed).code, 'ERR_IDENTITY_REVOKED');
  t.is((await refused(t, channel.request({ type: 'status' }))).code, 'ERR_IDENTITY_REVOKED');
  channel.send({ type: 'tunnel_closed', tunnel: newId('tunnel'), reason: 'done' }); // dropped, not thrown
});

test('ControlChannel - a close text that does not fit its code means a lost connection', async (t) => {
  let peer: WebSocket | undefined;
  const served = await serve(t, (ws) => {
    peer = ws;
    actAsControlPlane(ws, pki);
  });
  const channel = await open(t, served);
  peer?.close(4400, 'ERR_IDENTITY_REVOKED');
  const error = await channel.closed;
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.hop, 'network');
});

test('ControlChannel - closes when its signal aborts', async (t) => {
  const served = await serve(t, controlPlane());
  const controller = new AbortController();
  const channel = await open(t, served, { signal: controller.signal });
  controller.abort();
  t.is((await channel.closed).reason, 'closed_here');
});
