import test from 'ava';
import type { Permit } from '../../../client/agent/permit.ts';
import {
  KeptTunnel,
  type OpenedTunnel,
  type TunnelSource,
} from '../../../client/agent/kept-tunnel.ts';
import type { TunnelEvent } from '../../../client/agent/tunnel-event.ts';
import { ZtnaError, type ErrorCode, type TunnelStream } from '../../../protocol/index.ts';

/** A tunnel that a test ends as it likes. */
class FakeTunnel implements OpenedTunnel {
  readonly id: string;
  readonly untilMs = 1_900_000_000_000;
  isOpen = true;
  isDetached = false;
  isLeaving = false;
  holdLeftMs = 0;
  streamCount = 0;
  watcher: OpenedTunnel['watcher'] = {};
  readonly grant: OpenedTunnel['grant'];
  readonly accepted: Promise<undefined>;
  readonly closed: Promise<ZtnaError>;
  readonly #closed = Promise.withResolvers<ZtnaError>();

  constructor(id: string, refusal?: ErrorCode) {
    this.id = id;
    this.grant = { instance: `ins_of_${id}` } as unknown as OpenedTunnel['grant'];
    this.closed = this.#closed.promise;
    this.accepted = refusal ? Promise.reject(new ZtnaError(refusal)) : Promise.resolve(undefined);
    if (refusal) this.isOpen = false;
  }

  end(code: ErrorCode, reason: string): void {
    this.isOpen = false;
    this.#closed.resolve(new ZtnaError(code, { reason }));
  }

  hurry(): void {
    this.hurried++;
  }

  hurried = 0;

  openStream(): TunnelStream {
    throw new Error('not in these tests');
  }
}

/** Gives out what a test lined up: tunnels, or codes with which a request is refused. */
class FakeAgent implements TunnelSource {
  readonly opened: FakeTunnel[] = [];
  readonly #answers: (ErrorCode | FakeTunnel)[];
  asked = 0;

  constructor(...answers: (ErrorCode | FakeTunnel)[]) {
    this.#answers = answers;
  }

  async requestPermit(): Promise<Permit> {
    this.asked++;
    const next = this.#answers[0];
    if (typeof next === 'string') {
      this.#answers.shift();
      return Promise.reject(new ZtnaError(next, { ref: 'dec_1' }));
    }
    const grant = next?.grant;
    return Promise.resolve({ portHint: 5432, verified: { grant } } as unknown as Permit);
  }

  giveUp(): void {
    this.given++;
    this.#answers.shift();
  }

  given = 0;

  async openTunnel(): Promise<OpenedTunnel> {
    const next = this.#answers.shift();
    if (!(next instanceof FakeTunnel))
      return Promise.reject(new ZtnaError('ERR_CONNECTOR_OFFLINE'));
    this.opened.push(next);
    return Promise.resolve(next);
  }

  async closeTunnel(tunnel: OpenedTunnel, reason: string): Promise<void> {
    tunnel.end('ERR_TUNNEL_CLOSED', reason);
    return Promise.resolve();
  }
}

interface Kept {
  readonly kept: KeptTunnel;
  readonly events: TunnelEvent[];
  /** Resolves when so many `open` events have come. */
  opened(count: number): Promise<void>;
}

function keep(agent: FakeAgent, onPermit: () => void = () => undefined): Kept {
  const events: TunnelEvent[] = [];
  const wakes = new Set<() => void>();
  const kept = new KeptTunnel({
    agent,
    app: 'wiki',
    reporter: {
      report: (event) => {
        events.push(event);
        for (const wake of wakes) wake();
      },
      say: () => undefined,
    },
    onPermit: async () => {
      onPermit();
      return Promise.resolve();
    },
  });
  const openCount = (): number => events.filter(({ event }) => event === 'open').length;
  return {
    kept,
    events,
    opened: async (count) =>
      new Promise((resolve) => {
        const check = (): void => {
          if (openCount() >= count) resolve();
        };
        wakes.add(check);
        check();
      }),
  };
}

const names = (events: readonly TunnelEvent[]): string[] => events.map(({ event }) => event);

test('KeptTunnel - listens between permission and opening, and tells open only after ACCEPT', async (t) => {
  const order: string[] = [];
  const tunnel = new FakeTunnel('tun_1');
  const agent = new FakeAgent(tunnel);
  const { kept, events } = keep(agent, () => order.push(`permit, ${agent.opened.length} opened`));
  await kept.start();
  t.deepEqual(order, ['permit, 0 opened']);
  t.deepEqual(names(events), ['open']);
  t.is(kept.current, tunnel);
  tunnel.watcher.onVerified?.();
  t.deepEqual(names(events), ['open', 'verified']);
  await kept.close('done');
});

test('KeptTunnel - does not retry a first request that was refused', async (t) => {
  const agent = new FakeAgent('ERR_POLICY_DENIED');
  await t.throwsAsync(keep(agent).kept.start(), { code: 'ERR_POLICY_DENIED' });
  t.is(agent.asked, 1);
});

test('KeptTunnel - asks once more when the first path failed for a passing reason', async (t) => {
  const agent = new FakeAgent(
    new FakeTunnel('tun_1', 'ERR_TUNNEL_PATH_LOST'),
    new FakeTunnel('tun_2'),
  );
  const { kept, events } = keep(agent);
  await kept.start();
  t.is(agent.asked, 2);
  t.deepEqual(names(events), ['open']);
  await kept.close('done');
});

test('KeptTunnel - does not ask again when the connector refused the grant for good', async (t) => {
  const agent = new FakeAgent(new FakeTunnel('tun_1', 'ERR_GRANT_REVOKED'));
  await t.throwsAsync(keep(agent).kept.start(), { code: 'ERR_GRANT_REVOKED' });
  t.is(agent.asked, 1);
});

for (const code of ['ERR_TUNNEL_PATH_LOST', 'ERR_RELAY_DRAINING', 'ERR_RECORD_TAMPERED'] as const) {
  test(`KeptTunnel - opens a new tunnel after ${code}, through refusals that pass`, async (t) => {
    const first = new FakeTunnel('tun_1');
    const second = new FakeTunnel('tun_2');
    const agent = new FakeAgent(first, 'ERR_CONNECTOR_OFFLINE', second);
    const steps = keep(agent);
    const { kept, events } = steps;
    await kept.start();
    first.end(code, 'gone');
    await steps.opened(2);
    t.deepEqual(names(events), ['open', 'closed', 'open']);
    t.is(kept.current, second);
    await kept.close('done');
    t.is(await kept.ended, undefined);
  });
}

for (const code of [
  'ERR_TUNNEL_REVOKED',
  'ERR_TUNNEL_LEASE_EXPIRED',
  'ERR_IDENTITY_REVOKED',
] as const) {
  test(`KeptTunnel - ends with ${code} and its reason, and never redials`, async (t) => {
    const tunnel = new FakeTunnel('tun_1');
    const agent = new FakeAgent(tunnel, new FakeTunnel('tun_2'));
    const { kept, events } = keep(agent);
    await kept.start();
    tunnel.end(code, 'user_disabled');
    const error = await kept.ended;
    t.is(error?.code, code);
    t.regex(error?.message ?? '', /user disabled/);
    t.deepEqual(events.at(-1), { event: 'closed', reason: 'user_disabled', code });
    t.is(agent.asked, 1);
    t.is(await kept.whenOpen(new AbortController().signal), undefined);
  });
}

test('KeptTunnel - takes a denial on redialling for access that ended while connected', async (t) => {
  const tunnel = new FakeTunnel('tun_1');
  const agent = new FakeAgent(tunnel, 'ERR_POLICY_DENIED');
  const { kept } = keep(agent);
  await kept.start();
  tunnel.end('ERR_TUNNEL_PATH_LOST', 'gone');
  const error = await kept.ended;
  t.is(error?.code, 'ERR_TUNNEL_REVOKED');
  t.is(error?.ref, 'dec_1');
});

test('KeptTunnel - says that a sign-in is needed when the session has ended meanwhile', async (t) => {
  const tunnel = new FakeTunnel('tun_1');
  const { kept } = keep(new FakeAgent(tunnel, 'ERR_IDENTITY_SIGN_IN_NEEDED'));
  await kept.start();
  tunnel.end('ERR_TUNNEL_PATH_LOST', 'gone');
  t.is((await kept.ended)?.code, 'ERR_IDENTITY_SIGN_IN_NEEDED');
});

test('KeptTunnel.whenOpen - gives waiting connections the next tunnel, or nothing when they give up', async (t) => {
  const first = new FakeTunnel('tun_1');
  const second = new FakeTunnel('tun_2');
  const { kept } = keep(
    new FakeAgent(first, 'ERR_CONNECTOR_OFFLINE', 'ERR_CONNECTOR_OFFLINE', second),
  );
  await kept.start();
  first.end('ERR_TUNNEL_PATH_LOST', 'gone');
  const impatient = new AbortController();
  const waiting = kept.whenOpen(new AbortController().signal);
  const leaving = kept.whenOpen(impatient.signal);
  impatient.abort();
  t.is(await leaving, undefined);
  t.is(await waiting, second);
  await kept.close('done');
});

test('KeptTunnel.close - ends a redial that is under way, and may be called again', async (t) => {
  const tunnel = new FakeTunnel('tun_1');
  const { kept, events } = keep(new FakeAgent(tunnel));
  await kept.start();
  tunnel.end('ERR_TUNNEL_PATH_LOST', 'gone');
  await kept.close('interrupted');
  await kept.close('interrupted');
  t.is(await kept.ended, undefined);
  t.is(names(events).filter((name) => name === 'open').length, 1);
});

test('KeptTunnel - turns to another connector when its own stops, and lets the old tunnel end with its last stream', async (t) => {
  const [first, second] = [new FakeTunnel('tun_1'), new FakeTunnel('tun_2')];
  const agent = new FakeAgent(first, second);
  const rig = keep(agent);
  const { kept } = rig;
  await kept.start();
  first.streamCount = 1;
  first.isLeaving = true;
  first.watcher.onLeaving?.();
  await rig.opened(2);
  t.is(kept.current, second);
  t.true(first.isOpen, 'what it carries goes on');
  first.streamCount = 0;
  await first.closed;
  t.is(kept.current, second);
  await kept.close('test');
});

test('KeptTunnel - keeps to a connector that stops until there is another', async (t) => {
  const [first, second] = [new FakeTunnel('tun_1'), new FakeTunnel('tun_2')];
  const agent = new FakeAgent(first, 'ERR_CONNECTOR_OFFLINE', second);
  const rig = keep(agent);
  const { kept } = rig;
  await kept.start();
  first.isLeaving = true;
  first.watcher.onLeaving?.();
  t.is(kept.current, first);
  await rig.opened(2);
  t.is(kept.current, second);
  await kept.close('test');
});

test('KeptTunnel - lets new connections wait for a detached tunnel, and tells of it', async (t) => {
  const first = new FakeTunnel('tun_1');
  const { kept, events } = keep(new FakeAgent(first));
  await kept.start();
  first.isDetached = true;
  first.holdLeftMs = 60_000;
  first.watcher.onDetached?.('path_lost', 1_900_000_000_000);
  t.is(kept.current, undefined);
  t.is(kept.holdLeftMs, 60_000);
  const waiting = kept.whenOpen(new AbortController().signal);
  first.isDetached = false;
  first.watcher.onResumed?.();
  t.is(await waiting, first);
  t.deepEqual(names(events), ['open', 'detached', 'resumed']);
  t.deepEqual(events[1], {
    event: 'detached',
    reason: 'path_lost',
    until: new Date(1_900_000_000_000).toISOString(),
  });
  await kept.close('done');
});

test('KeptTunnel - gives those who wait a tunnel to another connector while the own one is away', async (t) => {
  const [first, second] = [new FakeTunnel('tun_1'), new FakeTunnel('tun_2')];
  const agent = new FakeAgent(first, second);
  const { kept, events } = keep(agent);
  await kept.start();
  first.streamCount = 1;
  first.isDetached = true;
  first.watcher.onAway?.();
  t.is(agent.asked, 1); // nobody waits yet
  t.is(await kept.whenOpen(new AbortController().signal), second);
  t.true(first.isOpen, 'what it carried may still be taken up');
  first.end('ERR_TUNNEL_RESUME_REFUSED', 'connector_gone');
  await first.closed;
  t.is(kept.current, second);
  t.deepEqual(names(events), ['open', 'open']);
  await kept.close('done');
});

test('KeptTunnel - hands back a permission for the very connector that was away, which is back', async (t) => {
  const [first, same] = [new FakeTunnel('tun_1'), new FakeTunnel('tun_1')];
  const agent = new FakeAgent(first, same);
  const { kept } = keep(agent);
  await kept.start();
  first.isDetached = true;
  first.watcher.onAway?.();
  const waiting = kept.whenOpen(new AbortController().signal);
  while (first.hurried === 0) await new Promise(setImmediate);
  t.is(agent.given, 1);
  first.isDetached = false;
  first.watcher.onResumed?.();
  t.is(await waiting, first);
  await kept.close('done');
});

test('KeptTunnel - opens another tunnel when one cannot be taken up again', async (t) => {
  const [first, second] = [new FakeTunnel('tun_1'), new FakeTunnel('tun_2')];
  const rig = keep(new FakeAgent(first, second));
  await rig.kept.start();
  first.end('ERR_TUNNEL_RESUME_REFUSED', 'connector_gone');
  await rig.opened(2);
  t.deepEqual(names(rig.events), ['open', 'closed', 'open']);
  t.is(rig.kept.current, second);
  await rig.kept.close('done');
});
