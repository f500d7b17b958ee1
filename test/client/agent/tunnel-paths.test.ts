import { setTimeout as wait } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { Agent } from '../../../client/agent/agent.ts';
import type { RekeyLimits } from '../../../client/agent/path-turnover.ts';
import type { Tunnel } from '../../../client/agent/tunnel.ts';
import { newId, type ErrorCode, type Grant } from '../../../protocol/index.ts';
import { pattern, StreamLog } from '../../support/tunnel-pair.ts';
import { AgentRig } from './agent-rig.ts';

type Message = Record<string, unknown>;

interface Lasting {
  readonly rig: AgentRig;
  readonly agent: Agent;
  readonly tunnel: Tunnel;
  /** Of the first path. */
  readonly grant: Grant;
  /** What the tunnel has told: `detached path_lost`, `resumed`, … */
  readonly told: string[];
  /** Requests for a path. */
  readonly asked: Message[];
  /** What the connector's end of each stream received. */
  readonly served: StreamLog[];
}

interface Plan {
  /** Answers request number `n` for a path, from 0; by default with the next generation. */
  readonly path?: (n: number, next: Grant, rig: AgentRig) => Message | undefined;
  readonly grant?: Partial<Grant>;
  readonly rekey?: RekeyLimits;
  readonly version?: number;
}

/** An agent with one open tunnel of the second version. */
async function startLasting(t: ExecutionContext, plan: Plan = {}): Promise<Lasting> {
  const rig = await AgentRig.start(t);
  rig.version = plan.version ?? 2;
  const served: StreamLog[] = [];
  rig.role = { onStream: (stream) => served.push(new StreamLog(stream)) };
  const grant = rig.grant({ version: 2, ...plan.grant });
  const asked: Message[] = [];
  let last = grant;
  rig.answer = (message) => {
    if (message['type'] === 'grant') return rig.permit(grant);
    if (message['type'] !== 'path') return undefined;
    if (message['tunnel'] === null) return rig.pathPermit(grant);
    last = rig.nextGrant(last);
    asked.push(message);
    const n = asked.length - 1;
    return plan.path ? plan.path(n, last, rig) : rig.pathPermit(last);
  };
  const agent = await rig.agent(t, undefined, plan.rekey);
  const tunnel = await agent.openTunnel(await agent.requestPermit('wiki'));
  const told: string[] = [];
  tunnel.watcher = {
    onDetached: (reason, untilMs) => {
      told.push(`detached ${reason}`);
      t.true(untilMs > Date.now());
    },
    onResumed: () => told.push('resumed'),
    onMoved: () => told.push('moved'),
    onAway: () => told.push('away'),
  };
  await tunnel.accepted;
  return { rig, agent, tunnel, grant, told, asked, served };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await wait(2);
}

const refusal = (code: ErrorCode): Message => ({
  type: 'refusal',
  code,
  message: null,
  fix: null,
  ref: null,
});

test.serial(
  'Tunnel - goes on with another path when one is lost, with every byte once',
  async (t) => {
    const { rig, tunnel, grant, told, asked, served } = await startLasting(t);
    const sent = pattern(1, 0, 2_000_000);
    const log = new StreamLog(tunnel.openStream());
    log.stream.write(sent.subarray(0, 1_000_000));
    await until(() => (served[0]?.receivedBytes ?? 0) > 100_000);
    rig.paths[0]?.cut();
    await until(() => told.includes('resumed'));
    log.stream.write(sent.subarray(1_000_000));
    log.stream.end();
    await until(() => served[0]?.events.includes('end') === true);
    t.true(served[0]?.bytes.equals(sent));
    t.deepEqual(told, ['detached path_lost', 'resumed']);
    t.deepEqual(asked, [
      { type: 'path', id: 2, app: 'wiki', tunnel: grant.tunnel, avoid: [rig.relay] },
    ]);
    t.is(tunnel.grant.generation, 2);
  },
);

test.serial('Tunnel - tries again while the control plane names no path that works', async (t) => {
  const { rig, told, asked, tunnel } = await startLasting(t, {
    path: (n, next, from) => {
      if (n === 0) return refusal('ERR_RELAY_UNAVAILABLE');
      if (n === 1) return refusal('ERR_CONNECTOR_OFFLINE');
      from.role = n === 2 ? { refusal: 'ERR_TUNNEL_RESUME_REFUSED' } : {};
      return from.pathPermit(next);
    },
  });
  rig.paths[0]?.cut();
  await until(() => told.includes('resumed'));
  t.deepEqual(told, ['detached path_lost', 'away', 'resumed']);
  t.deepEqual(asked[0]?.['avoid'], [rig.relay]);
  t.is(asked.length, 4);
  t.true(tunnel.isOpen);
});

const finals: readonly [ErrorCode, ErrorCode][] = [
  ['ERR_TUNNEL_REVOKED', 'ERR_TUNNEL_REVOKED'],
  ['ERR_POLICY_DENIED', 'ERR_TUNNEL_REVOKED'],
  ['ERR_TUNNEL_RESUME_REFUSED', 'ERR_TUNNEL_RESUME_REFUSED'],
  ['ERR_IDENTITY_SIGN_IN_NEEDED', 'ERR_IDENTITY_SIGN_IN_NEEDED'],
];
for (const [said, code] of finals) {
  test.serial(
    `Tunnel - ends with ${code} when it may not be taken up again: ${said}`,
    async (t) => {
      const { rig, tunnel, asked } = await startLasting(t, { path: () => refusal(said) });
      const log = new StreamLog(tunnel.openStream());
      rig.paths[0]?.cut();
      t.is((await tunnel.closed).code, code);
      t.deepEqual(log.events, ['reset closed']);
      t.is(asked.length, 1);
    },
  );
}

const others: readonly [what: string, changes: (rig: AgentRig) => Partial<Grant>][] = [
  ['another tunnel', () => ({ tunnel: newId('tunnel') })],
  ['another connector process', () => ({ instance: newId('instance') })],
  ['a generation that was there', () => ({ generation: 1 })],
  ['the first version', () => ({ version: 1 })],
];
for (const [what, changes] of others) {
  test.serial(`Tunnel - uses no permission for ${what}`, async (t) => {
    const { rig, tunnel, told, asked } = await startLasting(t, {
      path: (n, next, from) =>
        from.pathPermit(n < 2 ? { ...next, ...changes(from) } : { ...next, generation: 9 }),
    });
    rig.paths[0]?.cut();
    await until(() => told.includes('resumed'));
    // On a busy machine it may have asked once more while the right one was dialled.
    t.true(asked.length >= 3, 'it asks again, since that was no answer');
    t.true(rig.paths.length < asked.length, 'and dials for right ones alone');
    t.true(tunnel.isOpen);
  });
}

test.serial(
  'Tunnel - keeps everything when its lease is over, and goes on when it is decided anew',
  async (t) => {
    const { rig, tunnel, grant, told, served } = await startLasting(t, {
      path: (_n, next, from) => from.pathPermit({ ...next, untilMs: Date.now() + 60_000 }),
    });
    rig.push(rig.leases([[grant.tunnel, [1, 2], Date.now()]]));
    const log = new StreamLog(tunnel.openStream());
    log.stream.write(Buffer.from('kept'));
    await until(() => served[0]?.receivedBytes === 4 && told.includes('resumed'));
    t.deepEqual(told, ['detached lease_expired', 'resumed']);
    t.deepEqual(
      log.events.filter((event) => event !== 'writable'),
      [],
    );
  },
);

test.serial(
  'Tunnel - ends a detached one when it is revoked, and tells the control plane of no other end',
  async (t) => {
    const { rig, tunnel, grant } = await startLasting(t, {
      path: () => refusal('ERR_RELAY_UNAVAILABLE'),
    });
    rig.paths[0]?.cut();
    await until(() => tunnel.isDetached);
    rig.push({
      type: 'tunnel_ended',
      tunnel: grant.tunnel,
      code: 'ERR_TUNNEL_REVOKED',
      reason: 'policy_changed',
    });
    t.like(await tunnel.closed, { code: 'ERR_TUNNEL_REVOKED', reason: 'policy_changed' });
  },
);

test.serial(
  'Tunnel - resets everything when nobody comes for as long as it is held, and says so',
  async (t) => {
    const { rig, tunnel, grant } = await startLasting(t, {
      grant: { holdMs: 50 },
      path: () => refusal('ERR_RELAY_UNAVAILABLE'),
    });
    const log = new StreamLog(tunnel.openStream());
    rig.paths[0]?.cut();
    const { code, reason } = await tunnel.closed;
    t.deepEqual([code, reason], ['ERR_TUNNEL_PATH_LOST', 'hold_over']);
    t.deepEqual(log.events, ['reset closed']);
    await rig.until(() => rig.received.find(({ type }) => type === 'tunnel_closed'));
    t.is(rig.received.find(({ type }) => type === 'tunnel_closed')?.['tunnel'], grant.tunnel);
  },
);

test.serial(
  'Agent.stop - tells the control plane of a detached tunnel, which nobody else would',
  async (t) => {
    const { rig, agent, tunnel, grant } = await startLasting(t, {
      path: () => refusal('ERR_RELAY_UNAVAILABLE'),
    });
    rig.paths[0]?.cut();
    await until(() => tunnel.isDetached);
    await agent.stop('interrupted');
    await rig.until(() => rig.received.find(({ type }) => type === 'tunnel_closed'));
    t.like(rig.received.at(-1), {
      type: 'tunnel_closed',
      tunnel: grant.tunnel,
      reason: 'interrupted',
    });
  },
);

test.serial(
  'Tunnel - gets new keys on another path once it has carried enough, and not while it is idle',
  async (t) => {
    const { rig, tunnel, told, asked, served } = await startLasting(t, {
      rekey: { afterMs: 600_000, afterBytes: 100_000 },
    });
    const sent = pattern(6, 0, 1_500_000);
    const log = new StreamLog(tunnel.openStream());
    for (let at = 0; at < sent.length; at += 300_000) {
      log.stream.write(sent.subarray(at, at + 300_000));
      const moves = told.length;
      await until(() => told.length > moves);
    }
    log.stream.end();
    await until(() => served[0]?.events.includes('end') === true);
    t.true(served[0]?.bytes.equals(sent));
    t.true(told.length >= 5 && told.every((event) => event === 'moved'), told.join(' '));
    t.is(tunnel.grant.generation, 1 + told.length);
    t.is(asked.length, told.length);
    t.is(rig.paths.length, 1 + told.length);
  },
);

test.serial('Tunnel - leaves its path alone while a move fails', async (t) => {
  const { tunnel, told, asked, served } = await startLasting(t, {
    path: () => refusal('ERR_POLICY_DENIED'),
    rekey: { afterMs: 0, afterBytes: Infinity },
  });
  const log = new StreamLog(tunnel.openStream());
  log.stream.write(Buffer.from('one'));
  await until(() => asked.length === 1);
  log.stream.write(Buffer.from('two'));
  await until(() => served[0]?.receivedBytes === 6);
  t.deepEqual(told, []);
  t.true(tunnel.isOpen);
});

test.serial('Tunnel - leaves a relay that is about to stop before it does', async (t) => {
  const { rig, tunnel, told, asked } = await startLasting(t);
  new StreamLog(tunnel.openStream()).stream.write(Buffer.from('x'));
  rig.paths[0]?.say('{"type":"drain"}');
  await until(() => told.includes('moved'));
  t.deepEqual(told, ['moved']);
  t.deepEqual(asked[0]?.['avoid'], [rig.relay]);
});

test.serial('Tunnel - asks an older control plane for no path', async (t) => {
  const { rig, tunnel, asked } = await startLasting(t, { version: 1, grant: { holdMs: 100 } });
  rig.paths[0]?.cut();
  t.is((await tunnel.closed).reason, 'hold_over');
  t.is(asked.length, 0);
});

test.serial('Tunnel - believes no other end than the one it was opened with', async (t) => {
  const { rig, tunnel, told } = await startLasting(t, {
    grant: { holdMs: 300 },
    path: (_n, next, from) => {
      from.forget(); // the connector behind the relay makes a tunnel of its own
      return from.pathPermit(next);
    },
  });
  const log = new StreamLog(tunnel.openStream());
  rig.paths[0]?.cut();
  t.is((await tunnel.closed).reason, 'hold_over');
  t.deepEqual(
    told.filter((event) => event === 'resumed'),
    [],
  );
  t.deepEqual(log.events, ['reset closed']);
});
