import test, { type ExecutionContext } from 'ava';
import { leadPolling } from '../../../../relay/control-plane/signals/poll.ts';
import type { Services } from '../../../../relay/control-plane/services.ts';
import { openTestStore, onEveryStore, TestClock } from '../fixture.ts';
import { email, SignalRig } from './signal-rig.ts';
import { registerStreams } from '../../../../relay/control-plane/signals/streams.ts';
import { audience, caep, issuer, keySet, OutsideServer } from './transmitter.ts';

const pollSecret = 'a-secret-of-the-receiver';

interface Poll {
  readonly maxEvents: number;
  readonly returnImmediately: boolean;
  readonly ack: string[];
  readonly setErrs?: Record<string, { err: string }>;
}

/** A transmitter that is asked: it gives what it has until that is acknowledged or refused. */
class PolledTransmitter {
  readonly tokens = new Map<string, string>();
  readonly acked: string[] = [];
  readonly refused: Record<string, { err: string }> = {};
  readonly polls: Poll[] = [];
  readonly #wake = new Set<() => void>();
  /** What is answered in place of tokens, while there is anything. */
  readonly troubles: { status: number; text: string }[] = [];
  server!: OutsideServer;

  static async start(t: ExecutionContext): Promise<PolledTransmitter> {
    const all = new PolledTransmitter();
    const jwks = JSON.stringify(await keySet());
    all.server = await OutsideServer.start((request, body, response) => {
      if (request.url === '/jwks') {
        response.end(jwks);
        return;
      }
      if (request.headers.authorization !== `Bearer ${pollSecret}`) {
        response.writeHead(401).end();
        return;
      }
      const trouble = all.troubles.shift();
      if (trouble) {
        response.writeHead(trouble.status).end(trouble.text);
        all.#tell();
        return;
      }
      const poll = JSON.parse(body) as Poll;
      all.polls.push(poll);
      for (const jti of [...poll.ack, ...Object.keys(poll.setErrs ?? {})]) all.tokens.delete(jti);
      all.acked.push(...poll.ack);
      Object.assign(all.refused, poll.setErrs);
      const sets = Object.fromEntries([...all.tokens].slice(0, poll.maxEvents));
      const moreAvailable = all.tokens.size > poll.maxEvents;
      response.end(JSON.stringify({ sets, moreAvailable }));
      all.#tell();
    });
    t.teardown(() => all.server.stop());
    return all;
  }

  #tell(): void {
    for (const wake of [...this.#wake]) wake();
  }

  /** Resolves once `isTrue` after a poll. */
  until(isTrue: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!isTrue()) return;
        this.#wake.delete(look);
        resolve();
      };
      this.#wake.add(look);
      look();
    });
  }
}

async function start(t: ExecutionContext, transmitter: PolledTransmitter): Promise<SignalRig> {
  const files = new SignalRig();
  const outside = { allowPrivate: true, caFile: transmitter.server.caFile(files.dir) };
  const all = await SignalRig.start({
    receive: [
      {
        ...{ name: 'idp', issuer, audience, pushTokenFile: null },
        keys: { url: transmitter.server.url('/jwks'), ...outside },
        poll: {
          ...{ url: transmitter.server.url('/poll'), ...outside, everyMs: 20 },
          tokenFile: files.file('poll-token', pollSecret),
        },
        subjects: { email: 'local_part', domains: ['example.com'], mapFile: null },
        ...{ maxAgeMs: 86_400_000, riskMs: 3_600_000 },
      },
    ],
  });
  t.teardown(async () => {
    await all.stop();
    await files.stop();
  });
  await all.rig.admin('user.add', { name: 'alice' });
  return all;
}

test('poll - carries events out, acknowledges them once durable, and refuses bad ones by their jti', async (t) => {
  const transmitter = await PolledTransmitter.start(t);
  const all = await start(t, transmitter);
  const token = (wishes: Record<string, unknown> = {}) =>
    all.token(`${caep}session-revoked`, {}, email('alice'), { claims: wishes });
  transmitter.tokens.set('good', await token({ jti: 'good' }));
  transmitter.tokens.set('issuer', await token({ jti: 'issuer', iss: 'https://else' }));
  transmitter.tokens.set('renamed', await token({ jti: 'other' }));
  transmitter.tokens.set('rubbish', 'rubbish');
  await transmitter.until(() => transmitter.tokens.size === 0);
  t.deepEqual(transmitter.acked, ['good']);
  t.deepEqual(
    Object.fromEntries(Object.entries(transmitter.refused).map(([jti, { err }]) => [jti, err])),
    { issuer: 'invalid_issuer', renamed: 'invalid_request', rubbish: 'invalid_request' },
  );
  t.true(transmitter.polls.every(({ returnImmediately }) => returnImmediately));
  const records = await all.records();
  t.is(records.filter(({ outcome }) => outcome === 'ok').length, 2);
  t.is(records.filter(({ details }) => details['effect'] === 'end_sessions').length, 2);
});

test('poll - takes all there is, in turns, without waiting in between', async (t) => {
  const transmitter = await PolledTransmitter.start(t);
  const all = await start(t, transmitter);
  for (let i = 0; i < 45; i++) {
    const jti = `t-${String(i)}`;
    const made = await all.token(`${caep}session-presented`, {}, email('alice'), {
      claims: { jti },
    });
    transmitter.tokens.set(jti, made);
  }
  await transmitter.until(() => transmitter.tokens.size === 0);
  t.is(new Set(transmitter.acked).size, 45);
  t.true(transmitter.polls.every(({ maxEvents }) => maxEvents <= 20));
});

test('poll - goes on after failures, and asks for less when an answer is too large', async (t) => {
  const transmitter = await PolledTransmitter.start(t);
  transmitter.troubles.push(
    { status: 500, text: 'nonsense' },
    { status: 200, text: 'x'.repeat(300_000) },
  );
  const all = await start(t, transmitter);
  await transmitter.until(() => transmitter.polls.length > 0);
  t.is(transmitter.polls[0]?.maxEvents, 1);
  const made = await all.token(`${caep}session-revoked`, {}, email('alice'), {
    claims: { jti: 'a' },
  });
  transmitter.tokens.set('a', made);
  await transmitter.until(() => transmitter.acked.includes('a'));
  t.pass();
});

test('poll - a token that was taken but not acknowledged comes again after a restart, and does nothing then', async (t) => {
  const transmitter = await PolledTransmitter.start(t);
  const all = await start(t, transmitter);
  const made = await all.token(`${caep}session-revoked`, {}, email('alice'), {
    claims: { jti: 'a' },
  });
  transmitter.tokens.set('a', made);
  await transmitter.until(() => transmitter.acked.length === 1);
  await all.rig.plane.stop();
  transmitter.tokens.set('a', made); // as if the acknowledgement had been lost
  await all.rig.startPlane();
  await transmitter.until(() => transmitter.acked.length === 2);
  t.is((await all.records()).length, 1);
});

const everyStore = onEveryStore(test);

everyStore(
  'leadPolling - one control plane asks at a time, another one once it has gone',
  async (t) => {
    const store = await openTestStore(t);
    const clock = new TestClock();
    const plane = (id: string) => ({ store, clock, self: { id } }) as unknown as Services;
    await registerStreams({ store }, ['idp']);
    t.true(await leadPolling(plane('a'), 'idp'));
    t.false(await leadPolling(plane('b'), 'idp'));
    clock.advance(20_000);
    t.true(await leadPolling(plane('a'), 'idp'));
    clock.advance(20_000);
    t.false(await leadPolling(plane('b'), 'idp'));
    clock.advance(11_000);
    t.true(await leadPolling(plane('b'), 'idp'));
    t.false(await leadPolling(plane('a'), 'idp'));
  },
);
