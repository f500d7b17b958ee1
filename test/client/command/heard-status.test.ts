import test from 'ava';
import {
  describeRelay,
  describeSignIn,
  notHeard,
  toHeard,
} from '../../../client/command/heard-status.ts';
import { newId, ZtnaError, type SessionFacts, type ToDevice } from '../../../protocol/index.ts';

type Status = Extract<ToDevice, { type: 'status' }>;

const hourMs = 3_600_000;
const session: SessionFacts = {
  session: newId('session'),
  user: 'ada',
  methods: ['pwd', 'otp'],
  signedInAtMs: 0,
  untilMs: 12 * hourMs,
  provider: 'corp',
};

function answer(changes: { state?: Status['device']['state']; session?: null } = {}): Status {
  const device = { id: newId('device'), hostname: 'laptop', certificateUntilMs: 24 * hourMs };
  const { state = 'enrolled' } = changes;
  return {
    type: 'status',
    id: 1,
    session: changes.session === undefined ? session : null,
    device: { ...device, state },
  };
}

test('status - tells where and how somebody is signed in, and what is left of it', (t) => {
  const heard = toHeard(answer(), 0.5 * hourMs);
  t.is(heard.session, session);
  t.is(describeRelay(heard), 'online');
  t.is(
    describeSignIn(heard),
    'ada at corp by pwd, otp, until 1970-01-01T12:00:00.000Z (11 h 30 min left)',
  );
});

for (const [what, heard, words] of [
  ['where nobody is', toHeard(answer({ session: null }), 0), 'no; run: ztna login'],
  ['once the sign-in has ended', toHeard(answer(), 12 * hourMs), 'no; run: ztna login'],
  [
    'on a device that waits for approval',
    toHeard(answer({ state: 'pending' }), 0),
    'no: this device waits for an administrator to approve it',
  ],
  [
    'on a disabled device',
    toHeard(answer({ state: 'disabled' }), 0),
    'no: this device was disabled',
  ],
  [
    'on a revoked device',
    notHeard(new ZtnaError('ERR_IDENTITY_REVOKED')),
    'no: this identity was revoked',
  ],
] as const) {
  test(`status - does not say that anybody is signed in ${what}`, (t) => {
    t.is(heard.session, null);
    t.is(describeSignIn(heard), words);
  });
}

for (const [code, relay, words] of [
  ['ERR_RELAY_UNREACHABLE', /^offline: /, 'unknown while offline'],
  ['ERR_IDENTITY_UNAUTHENTICATED', /^refused: /, 'unknown'],
] as const) {
  test(`status - says that it does not know who is signed in after ${code}`, (t) => {
    const heard = notHeard(new ZtnaError(code));
    t.is(heard.session, undefined);
    t.regex(describeRelay(heard), relay);
    t.is(describeSignIn(heard), words);
  });
}
