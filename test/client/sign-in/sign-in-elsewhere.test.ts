import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Agent } from '../../../client/agent/agent.ts';
import {
  signInElsewhere,
  type ElsewhereOptions,
  type SignInInvitation,
} from '../../../client/sign-in/sign-in-elsewhere.ts';
import { createLogger, type Identity } from '../../../protocol/host/index.ts';
import {
  proveSignIn,
  refuseSignIn,
  type Proof,
} from '../../../relay/control-plane/identity/sign-ins.ts';
import { Rig } from '../../relay/control-plane/service/rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;

test.before(async (t) => {
  t.context.rig = await Rig.start();
  t.context.rig.version = 4;
});
test.after.always(async (t) => {
  await t.context.rig.stop();
});

/** An agent of a new user's device. */
async function agentOf(t: ExecutionContext<{ rig: Rig }>, user: string): Promise<Agent> {
  const { rig } = t.context;
  const peer = await rig.device(user);
  peer.channel.close();
  const identity: Identity = peer.identity;
  const agent = await Agent.start({
    profile: { name: 'default', dir: rig.dir },
    identity,
    logger: createLogger({ program: 'test', write: () => undefined }),
  });
  t.teardown(() => agent.stop());
  return agent;
}

/** A person at a browser, as far as the relay is concerned: the sign-in is begun, and the test says how it goes on. */
class Person {
  readonly said: string[] = [];
  readonly options: ElsewhereOptions;
  readonly invited: Promise<SignInInvitation>;
  readonly stopping = new AbortController();
  readonly #rig: Rig;
  /** What is typed when the command asks. */
  typed: string[] = [];

  constructor(rig: Rig, changes: Partial<ElsewhereOptions> = {}) {
    this.#rig = rig;
    const { promise, resolve } = Promise.withResolvers<SignInInvitation>();
    this.invited = promise;
    this.options = {
      method: 'browser',
      provider: null,
      isStepUp: false,
      browser: { file: '/bin/true', args: [] },
      invite: resolve,
      askTicket: (signal) =>
        new Promise((give, reject) => {
          const answer = this.typed.shift();
          if (answer !== undefined) give(answer);
          signal.addEventListener('abort', () => reject(new Error('taken back')));
        }),
      say: (line) => void this.said.push(line),
      signal: this.stopping.signal,
      ...changes,
    };
  }

  async signInId(): Promise<string> {
    return new URL((await this.invited).url).pathname.split('/').at(-1) ?? '';
  }

  async port(): Promise<number> {
    const row = await this.#rig.plane.services.store.db
      .selectFrom('signIns')
      .select('loopbackPort')
      .where('id', '=', await this.signInId())
      .executeTakeFirstOrThrow();
    return row.loopbackPort ?? 0;
  }

  /** Proves to be that user; answers the ticket. */
  async prove(user: string, needsTicket = true): Promise<string> {
    const { store, sealer, clock } = this.#rig.plane.services;
    const row = await store.db
      .selectFrom('users')
      .select('id')
      .where('name', '=', user)
      .executeTakeFirstOrThrow();
    const nowMs = clock.nowMs();
    const proof: Proof = {
      user: row.id,
      provider: 'local',
      methods: ['passkey'],
      acr: '',
      authenticatedAtMs: nowMs,
      grant: null,
    };
    const id = await this.signInId();
    return store.write((tx) => proveSignIn(tx, sealer, id, proof, { nowMs, needsTicket }));
  }

  async bring(ticket: string, signIn?: string): Promise<Response> {
    const query = new URLSearchParams({ ticket, sign_in: signIn ?? (await this.signInId()) });
    return fetch(`http://127.0.0.1:${String(await this.port())}/?${query.toString()}`);
  }
}

test('signInElsewhere - the browser that comes back to this machine signs in', async (t) => {
  const agent = await agentOf(t, 'ada');
  const person = new Person(t.context.rig);
  const signingIn = signInElsewhere(agent, person.options);
  t.true((await person.invited).isOpened);
  const answer = await person.bring(await person.prove('ada'));
  const session = await signingIn;
  t.is(session.user, 'ada');
  t.deepEqual(session.methods, ['passkey']);
  t.is(answer.status, 200);
  t.regex(await answer.text(), /You are signed in/);
  const { session: now } = await agent.request({ type: 'status' });
  t.is(now?.session, session.session);
  await t.throwsAsync(person.bring('x'.repeat(43)), undefined, 'nobody listens any more');
});

test('signInElsewhere - the code that the page ends with is typed here, and one that is none is asked for again', async (t) => {
  const agent = await agentOf(t, 'bob');
  const person = new Person(t.context.rig, { browser: undefined });
  let ask: (text: string) => void = () => undefined;
  let asked = 0;
  const signingIn = signInElsewhere(agent, {
    ...person.options,
    askTicket: () => {
      asked += 1;
      return new Promise((resolve) => {
        ask = resolve;
        if (asked === 2) void person.prove('bob').then((ticket) => resolve(` ${ticket}\n`));
      });
    },
  });
  t.is(await person.port(), 0, 'no port');
  ask('not a code');
  t.is((await signingIn).user, 'bob');
  t.is(person.said.length, 1);
});

test('signInElsewhere - a ticket of another sign-in, or a made-up one, signs nobody in', async (t) => {
  const agent = await agentOf(t, 'cleo');
  const person = new Person(t.context.rig);
  const signingIn = signInElsewhere(agent, person.options);
  const ticket = await person.prove('cleo');
  t.is((await person.bring(ticket, 'A'.repeat(22))).status, 404);
  const refused = t.throwsAsync(signingIn, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  const answer = await person.bring('A'.repeat(43));
  t.is(answer.status, 400);
  t.regex(await answer.text(), /You are not signed in/);
  await refused;
});

test('signInElsewhere - another person’s proof signs nobody in at this device', async (t) => {
  const agent = await agentOf(t, 'dora');
  await agentOf(t, 'mallory');
  const person = new Person(t.context.rig);
  const refused = t.throwsAsync(signInElsewhere(agent, person.options), {
    code: 'ERR_IDENTITY_SIGN_IN_REFUSED',
  });
  const answer = await person.bring(await person.prove('mallory'));
  t.is(answer.status, 400);
  await refused;
});

test('signInElsewhere - waits on while the browser is on its way, and hears of a refusal without it', async (t) => {
  const agent = await agentOf(t, 'emma');
  const person = new Person(t.context.rig);
  const asked = Promise.withResolvers<undefined>();
  const watched: Pick<Agent, 'request'> = {
    request: async (message) => {
      const isPoll = message.type === 'sign_in_finish';
      try {
        return await agent.request(message);
      } finally {
        if (isPoll) asked.resolve(undefined);
      }
    },
  };
  const first = signInElsewhere(watched, person.options);
  const ticket = await person.prove('emma');
  await asked.promise; // it was asked for without a ticket, and goes on
  await person.bring(ticket);
  t.is((await first).user, 'emma');

  const second = new Person(t.context.rig);
  const refused = t.throwsAsync(signInElsewhere(agent, second.options), {
    code: 'ERR_IDENTITY_SIGN_IN_REFUSED',
    message: 'the sign-in was refused: domain not allowed',
  });
  const id = await second.signInId();
  await t.context.rig.plane.services.store.write((tx) =>
    refuseSignIn(tx, id, 'ERR_IDENTITY_SIGN_IN_REFUSED', 'domain_not_allowed'),
  );
  await refused;
});

test('signInElsewhere - ends when nobody waits for it any more, and listens no longer', async (t) => {
  const agent = await agentOf(t, 'fred');
  const person = new Person(t.context.rig);
  const given = t.throwsAsync(signInElsewhere(agent, person.options), { message: /given up/ });
  const port = await person.port();
  person.stopping.abort();
  await given;
  await t.throwsAsync(fetch(`http://127.0.0.1:${String(port)}/`));
});
