import test from 'ava';
import { SignInPrompt, type Person } from '../../../client/front-end/sign-in-prompt.ts';
import { ZtnaError, type ErrorCode } from '../../../protocol/index.ts';

interface Question {
  readonly text: string;
  readonly signal: AbortSignal;
  answer(text: string): void;
  giveUp(): void;
}

/** An agent that answers as told, and a person who answers when the test does. */
class Scene {
  readonly held = new Set<string>();
  readonly questions: Question[] = [];
  readonly said: string[] = [];
  readonly signIns: { readonly password: string; readonly otp: string | null }[] = [];
  readonly refusals: ErrorCode[] = [];
  readonly stopping = new AbortController();
  hasOtp = true;
  passkeys: string[] = [];
  canType = true;
  /** Of the session, or of the last one where there is none. */
  provider: string | undefined;
  hasSession = true;
  methods: readonly string[] = ['password'];
  needsPasskey = false;
  /** What the person was to do on a page, and whether he or she does. */
  readonly pages: { readonly isStepUp: boolean; readonly provider: string }[] = [];
  doesBrowse = true;
  readonly prompt: SignInPrompt;
  readonly #agent: ConstructorParameters<typeof SignInPrompt>[0];
  #waiting: (() => void) | undefined;

  constructor() {
    const request = async (message: { type: string; password?: string; otp?: string | null }) => {
      await Promise.resolve();
      const { provider, hasOtp, passkeys } = this;
      switch (message.type) {
        case 'otp_list':
          return { type: 'otp_state', enabled: hasOtp };
        case 'factors':
          return { type: 'factors', otp: hasOtp, passkeys };
        case 'status':
          return {
            type: 'status',
            session: this.hasSession ? { provider, methods: this.methods } : null,
          };
        case 'why': {
          const what = 'authentication.phishing_resistant';
          return { type: 'why', conditions: this.needsPasskey ? [{ what, met: false }] : [] };
        }
      }
      const { password = '', otp = null } = message;
      this.signIns.push({ password, otp });
      const code = this.refusals.shift();
      if (code !== undefined) throw new ZtnaError(code);
      return { type: 'signed_in', session: { user: 'alice' } };
    };
    this.#agent = {
      request: request as never,
      heldBackFor: this.held,
      onHeldBack: () => undefined,
      identity: { profile: { user: 'alice' } } as never,
      knowsIdentity: true,
    };
    const ask: Person['askHidden'] = async (text, signal) =>
      new Promise((resolve, reject) => {
        const giveUp = () => reject(new ZtnaError('ERR_CONFIG_USAGE'));
        signal.addEventListener('abort', giveUp);
        this.questions.push({ text, signal, answer: resolve, giveUp });
        this.#waiting?.();
      });
    const say = (line: string) => void this.said.push(line);
    this.prompt = new SignInPrompt(
      this.#agent,
      {
        canType: () => this.canType,
        askHidden: ask,
        askLine: ask,
        say,
        usualProvider: () => Promise.resolve(this.provider),
        browse: (what) => {
          this.pages.push(what);
          return Promise.resolve(this.doesBrowse);
        },
      },
      this.stopping.signal,
    );
  }

  /** What policy holds tunnels back for, from now on. */
  hold(...reasons: string[]): void {
    this.held.clear();
    for (const reason of reasons) this.held.add(reason);
    this.#agent.onHeldBack();
  }

  /** The question of that number, counted from 0. */
  async question(number: number): Promise<Question> {
    for (;;) {
      const found = this.questions[number];
      if (found) return found;
      await new Promise<void>((resolve) => (this.#waiting = resolve));
    }
  }
}

/** All that is under way in promises alone has happened. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('SignInPrompt - asks once for all tunnels that need it, and anew for what comes later', async (t) => {
  const scene = new Scene();
  scene.refusals.push('ERR_IDENTITY_OTP_NEEDED');
  scene.hold('step_up_needed');
  scene.hold('step_up_needed', 'sign_in_needed');
  const first = await scene.question(0);
  t.regex(first.text, /^password of alice/);
  scene.hold('step_up_needed', 'posture_unhealthy');
  first.answer('horse');
  (await scene.question(1)).answer('123456');
  await settled();
  scene.hold('step_up_needed'); // a tunnel that was decided on before the answer
  await settled();
  t.is(scene.questions.length, 2);
  t.deepEqual(scene.signIns, [
    { password: 'horse', otp: null },
    { password: 'horse', otp: '123456' },
  ]);
  scene.hold();
  scene.hold('sign_in_needed');
  await scene.question(2);
  t.is(scene.questions.length, 3);
});

test('SignInPrompt - asks nothing for what a sign-in does not mend', async (t) => {
  const scene = new Scene();
  scene.hold('posture_unhealthy', 'risk_high', 'signed_in_again');
  await t.throwsAsync(
    scene.prompt.retry('wiki', () => Promise.reject(new ZtnaError('ERR_POSTURE_UNHEALTHY'))),
    { code: 'ERR_POSTURE_UNHEALTHY' },
  );
  t.deepEqual(scene.questions, []);
});

test('SignInPrompt - takes the question back when another command has signed in', async (t) => {
  const scene = new Scene();
  scene.hold('sign_in_needed');
  const question = await scene.question(0);
  scene.hold();
  await settled();
  t.true(question.signal.aborted);
  t.deepEqual(scene.said, ['no answer is needed any more']);
  t.deepEqual(scene.signIns, []);
});

test('SignInPrompt - who gives up is not asked again before something else is wanted', async (t) => {
  const scene = new Scene();
  scene.hold('sign_in_needed');
  (await scene.question(0)).giveUp();
  await settled();
  t.regex(scene.said.join('\n'), /to sign in later: ztna login/);
  scene.hold('sign_in_needed', 'posture_stale');
  await t.throwsAsync(
    scene.prompt.retry('wiki', () => Promise.reject(new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED'))),
    { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' },
  );
  t.is(scene.questions.length, 1);
});

test('SignInPrompt - a refused request waits for the question that is open, and is asked once more', async (t) => {
  const scene = new Scene();
  scene.hold('sign_in_needed');
  const answers = [new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED'), 'permit'];
  const retried = scene.prompt.retry('wiki', async () => {
    await Promise.resolve();
    const answer = answers.shift();
    if (answer instanceof ZtnaError) throw answer;
    return answer;
  });
  const question = await scene.question(0);
  await settled();
  scene.hold();
  t.false(question.signal.aborted); // the request waits for it still
  question.answer('horse');
  t.is(await retried, 'permit');
  t.is(scene.questions.length, 1);
});

test('SignInPrompt - a wrong password is asked for three times, an empty one is not sent', async (t) => {
  const scene = new Scene();
  const wrong = 'ERR_IDENTITY_SIGN_IN_REFUSED';
  scene.refusals.push(wrong, wrong, wrong);
  scene.hold('sign_in_needed');
  for (const [number, password] of ['', 'a', 'b', 'c'].entries()) {
    (await scene.question(number)).answer(password);
  }
  await settled();
  t.deepEqual(
    scene.signIns.map(({ password }) => password),
    ['a', 'b', 'c'],
  );
  t.is(scene.questions.length, 4);
  t.regex(scene.said.at(-1) ?? '', /ERR_IDENTITY_SIGN_IN_REFUSED.*ztna login/);
});

test('SignInPrompt - whoever has no one-time passwords is told how to get them, and asked nothing', async (t) => {
  const scene = new Scene();
  scene.hasOtp = false;
  scene.hold('step_up_needed');
  await settled();
  t.deepEqual(scene.questions, []);
  t.regex(scene.said.join('\n'), /ztna mfa add/);
});

test('SignInPrompt - asks nothing any more once the command ends', async (t) => {
  const scene = new Scene();
  scene.hold('sign_in_needed');
  const question = await scene.question(0);
  scene.stopping.abort();
  await settled();
  t.true(question.signal.aborted);
  scene.hold();
  scene.hold('sign_in_needed');
  await settled();
  t.is(scene.questions.length, 1);
});

const needsStepUp = new ZtnaError('ERR_IDENTITY_OTP_NEEDED');

/** An app that is refused until it was asked for again. */
function refusedOnce(error: ZtnaError): () => Promise<string> {
  let count = 0;
  return () => (count++ === 0 ? Promise.reject(error) : Promise.resolve('permit'));
}

for (const [what, change, page] of [
  ['whose session is of a provider', { provider: 'corp' }, { isStepUp: true, provider: 'corp' }],
  [
    'of whom a passkey is wanted',
    { needsPasskey: true, passkeys: ['k'] },
    { isStepUp: true, provider: 'local' },
  ],
  [
    'who has a passkey alone',
    { hasOtp: false, passkeys: ['k'] },
    { isStepUp: true, provider: 'local' },
  ],
  ['who signed in with a passkey', { methods: ['passkey'] }, { isStepUp: true, provider: 'local' }],
  ['whose terminal belongs to an app', { canType: false }, { isStepUp: true, provider: 'local' }],
] as const) {
  test(`SignInPrompt - a person ${what} steps up on a page, and is asked nothing here`, async (t) => {
    const scene = new Scene();
    Object.assign(scene, change);
    t.is(await scene.prompt.retry('wiki', refusedOnce(needsStepUp)), 'permit');
    t.deepEqual(scene.pages, [page]);
    t.deepEqual(scene.questions, []);
  });
}

test('SignInPrompt - whoever signed in at a provider the last time does so again on a page', async (t) => {
  const scene = Object.assign(new Scene(), { hasSession: false, provider: 'corp' });
  scene.hold('sign_in_needed');
  await settled();
  t.deepEqual(scene.pages, [{ isStepUp: false, provider: 'corp' }]);
  t.deepEqual(scene.questions, []);
});

test('SignInPrompt - one page serves all tunnels that wait, and is not opened again for who gave up', async (t) => {
  const scene = Object.assign(new Scene(), { provider: 'corp', doesBrowse: false });
  scene.hold('sign_in_needed');
  scene.hold('sign_in_needed', 'step_up_needed');
  await settled();
  scene.hold('step_up_needed');
  await settled();
  t.is(scene.pages.length, 1);
  t.regex(scene.said.join('\n'), /ztna login/);
});

test('SignInPrompt - whoever has no passkey is told how to get one, and no page is opened', async (t) => {
  const scene = new Scene();
  scene.hold('passkey_needed');
  await settled();
  t.deepEqual([scene.pages.length, scene.questions.length], [0, 0]);
  t.regex(scene.said.join('\n'), /ztna mfa add --passkey/);
});
