import test, { type ExecutionContext } from 'ava';
import { Tunnel } from '../../../client/agent/tunnel.ts';
import { ControlClock } from '../../../protocol/host/index.ts';
import { newNoiseKeyPair, timeSchema, signStatement } from '../../../protocol/index.ts';
import { TestAuthority, testNowMs } from '../../support/authority.ts';
import { StreamLog } from '../../support/tunnel-pair.ts';
import { FakeConnector, type ConnectorRole } from './fake-connector.ts';

/** Control time that a test moves by hand. */
class ManualClock extends ControlClock {
  readonly #clocks: { monotonicMs: number; wallMs: number };

  constructor(authority: TestAuthority) {
    const clocks = { monotonicMs: 0, wallMs: 0 };
    super(() => ({ ...clocks }));
    this.#clocks = clocks;
    const nonce = Buffer.alloc(16).toString('base64url');
    const at = this.readClocks();
    const statement = signStatement(
      'time',
      timeSchema,
      { nonce, timeMs: testNowMs },
      authority.grantKey,
    );
    this.learn(statement, { nonce, sentAt: at, receivedAt: at }, authority.bundle.grantKeys);
  }

  pass(ms: number): void {
    this.#clocks.monotonicMs += ms;
  }
}

interface Path {
  readonly authority: TestAuthority;
  readonly clock: ManualClock;
  readonly connector: FakeConnector;
  /** Carries out the handshake with the path's other end. */
  open(): Promise<Tunnel>;
}

async function startPath(t: ExecutionContext, options: Partial<ConnectorRole> = {}): Promise<Path> {
  const authority = new TestAuthority();
  const permit = authority.permit({ untilMs: testNowMs + 5_000 });
  const connector = await FakeConnector.start({
    bundle: authority.bundle,
    relay: authority.relay,
    connector: authority.connector,
    instance: authority.instance,
    connectorKeys: authority.connectorKeys,
    grantStatement: permit.grant.statement,
    nowMs: testNowMs,
    ...options,
  });
  t.teardown(() => {
    connector.stop();
  });
  const clock = new ManualClock(authority);
  return {
    authority,
    clock,
    connector,
    open: async () =>
      Tunnel.open({
        permit,
        relay: { id: authority.relay, url: '' },
        identity: { rootId: authority.bundle.rootId, noiseKey: authority.deviceKeys.privateKey },
        webSocket: await connector.dial(),
        clock,
      }),
  };
}

async function openAccepted(t: ExecutionContext, path: Path): Promise<Tunnel> {
  const tunnel = await path.open();
  t.teardown(() => {
    tunnel.end('ERR_TUNNEL_CLOSED', 'test_over');
  });
  await tunnel.accepted;
  return tunnel;
}

test('Tunnel - carries a stream that was opened before the connector had accepted', async (t) => {
  const path = await startPath(t, {
    onStream: (stream) => {
      stream.attach({
        onData: (chunk) => {
          stream.write(Buffer.from(chunk));
          stream.consumed(chunk.length);
        },
        onEnd: () => {
          stream.end();
        },
        onReset: () => undefined,
        onWritable: () => undefined,
      });
    },
  });
  const tunnel = await path.open();
  t.teardown(() => {
    tunnel.end('ERR_TUNNEL_CLOSED', 'test_over');
  });
  const stream = tunnel.openStream();
  stream.write(Buffer.from('early'));
  stream.end();
  const log = new StreamLog(stream);
  const ended = Promise.withResolvers<undefined>();
  log.onEnd = () => {
    ended.resolve(undefined);
  };
  await tunnel.accepted;
  await ended.promise;
  t.is(log.bytes.toString(), 'early');
});

test('Tunnel - refuses another end than the connector of its permit', async (t) => {
  const path = await startPath(t, { connectorKeys: newNoiseKeyPair() });
  await t.throwsAsync(path.open(), { code: 'ERR_HANDSHAKE_FAILED' });
});

for (const [name, message2] of [
  ['bytes that are no message 2', Buffer.alloc(48, 1)],
  ['an empty message', Buffer.alloc(0)],
  ['text', 'hello'],
] as const) {
  test(`Tunnel - refuses ${name}`, async (t) => {
    const path = await startPath(t, { message2 });
    const error = await t.throwsAsync(path.open());
    t.regex((error as Error & { code: string }).code, /ERR_(HANDSHAKE_FAILED|MESSAGE_)/);
  });
}

test('Tunnel - tells the code with which the connector refused the grant', async (t) => {
  const path = await startPath(t, { refusal: 'ERR_GRANT_USED' });
  const tunnel = await path.open();
  await t.throwsAsync(tunnel.accepted, { code: 'ERR_GRANT_USED' });
  t.is((await tunnel.closed).code, 'ERR_GRANT_USED');
  t.false(tunnel.isOpen);
});

test('Tunnel - tells the code with which the path was closed during the handshake', async (t) => {
  const path = await startPath(t, { message2: null });
  const opening = path.open();
  opening.catch(() => undefined);
  (await path.connector.end).close('ERR_CONNECTOR_OFFLINE');
  await t.throwsAsync(opening, { code: 'ERR_CONNECTOR_OFFLINE' });
});

test('Tunnel - ends at both ends when its lease is over, and its streams are reset', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  const log = new StreamLog(tunnel.openStream());
  path.clock.pass(4_999);
  tunnel.tick();
  t.true(tunnel.isOpen);
  path.clock.pass(1);
  tunnel.tick();
  t.false(tunnel.isOpen);
  const { code, reason } = await tunnel.closed;
  t.deepEqual([code, reason], ['ERR_TUNNEL_LEASE_EXPIRED', 'lease_expired']);
  t.deepEqual(log.events, ['reset closed']);
  t.deepEqual(await (await path.connector.end).ended, {
    code: 'ERR_TUNNEL_LEASE_EXPIRED',
    reason: 'lease_expired',
  });
});

test('Tunnel - lets no byte pass after its lease, also between two ticks', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  path.clock.pass(5_000);
  tunnel.openStream().write(Buffer.from('late'));
  t.is((await tunnel.closed).code, 'ERR_TUNNEL_LEASE_EXPIRED');
});

test('Tunnel - counts a renewal only with a higher sequence, also one that shortens, and never after the end', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  let verified = 0;
  tunnel.watcher = { onVerified: () => verified++ };
  tunnel.renew([1, 2], testNowMs + 20_000);
  t.is(tunnel.untilMs, testNowMs + 20_000);
  tunnel.renew([1, 2], testNowMs + 30_000);
  tunnel.renew([0, 9], testNowMs + 30_000);
  t.is(tunnel.untilMs, testNowMs + 20_000);
  tunnel.renew([1, 3], testNowMs + 10_000);
  t.is(tunnel.untilMs, testNowMs + 10_000);
  t.is(verified, 2);
  path.clock.pass(10_000);
  tunnel.renew([1, 4], testNowMs + 60_000);
  tunnel.tick();
  t.is((await tunnel.closed).code, 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(verified, 2);
});

test('Tunnel - takes a reason that comes over the control channel after the path was cut', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  const log = new StreamLog(tunnel.openStream());
  const reset = Promise.withResolvers<undefined>();
  log.onReset = () => {
    reset.resolve(undefined);
  };
  (await path.connector.end).close('ERR_TUNNEL_REVOKED');
  await reset.promise;
  t.false(tunnel.isOpen);
  tunnel.end('ERR_TUNNEL_REVOKED', 'user_disabled');
  const { code, reason } = await tunnel.closed;
  t.deepEqual([code, reason], ['ERR_TUNNEL_REVOKED', 'user_disabled']);
});

test('Tunnel - takes the reason from the connector’s last frame', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  (await path.connector.end).keeper?.close('ERR_TUNNEL_REVOKED', 'policy_changed');
  const { code, reason } = await tunnel.closed;
  t.deepEqual([code, reason], ['ERR_TUNNEL_REVOKED', 'policy_changed']);
});

test('Tunnel - counts a path that breaks as lost, and resets its streams', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  const log = new StreamLog(tunnel.openStream());
  (await path.connector.end).cut();
  t.is((await tunnel.closed).code, 'ERR_TUNNEL_PATH_LOST');
  t.deepEqual(log.events, ['reset closed']);
  t.throws(() => tunnel.openStream(), { code: 'ERR_TUNNEL_CLOSED' });
});

test('Tunnel.end - tells the connector code and reason, and leaves nothing running', async (t) => {
  const path = await startPath(t);
  const tunnel = await openAccepted(t, path);
  tunnel.end('ERR_TUNNEL_CLOSED', 'interrupted');
  t.deepEqual(await (await path.connector.end).ended, {
    code: 'ERR_TUNNEL_CLOSED',
    reason: 'interrupted',
  });
  await tunnel.gone();
  t.is((await tunnel.closed).reason, 'interrupted');
});
