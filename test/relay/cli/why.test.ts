import test from 'ava';
import { replayLines, riskText, whyLines, type Rule, type Why } from '../../../relay/cli/why.ts';

const rule = (id: string, effect: Rule['effect'], isMet = false): Rule => ({
  id,
  name: null,
  file: 'apps.cedar',
  line: 3,
  effect,
  conditions: [{ what: 'groups', actual: 'staff', required: isMet ? 'staff' : 'dba', met: isMet }],
});

const why: Why = {
  user: 'anna',
  app: 'orders',
  device: 'dev_1',
  allowed: false,
  blockedBy: null,
  errors: [],
  groups: ['staff'],
  policyVersion: 3,
  rules: [],
  change: [],
  risk: { score: 0, contributions: [] },
};

test('policy why - shows what decides whole, and the rest by name', (t) => {
  const lines = whyLines({
    ...why,
    rules: [
      rule('no-guests', 'forbids'),
      { ...rule('staff', 'permits', true), name: 'Staff may' },
      rule('dba', 'does_not_permit'),
      rule('no-embargo', 'does_not_forbid', true),
    ],
  });
  t.deepEqual(lines, [
    'anna to orders: denied',
    'no-guests forbids (apps.cedar:3)',
    '  not met  groups  staff  must be dba',
    'staff permits (apps.cedar:3): Staff may',
    '  met      groups  staff',
    'not in play: dba, no-embargo',
    'smallest change: none that the user or one more group could bring',
    'risk: 0',
    'asked: policy version 3, anna in staff, on dev_1',
  ]);
});

test('policy why - where nothing permits it shows the three rules that miss least', (t) => {
  const ids = ['a', 'b', 'c', 'd', 'e'];
  const lines = whyLines({
    ...why,
    rules: ids.map((id) => rule(id, 'does_not_permit')),
    change: [
      { what: 'groups', required: 'dba' },
      { what: 'authentication.mfa', required: 'true' },
    ],
  });
  t.deepEqual(
    lines.filter((line) => line.includes('does not permit')).map((line) => line[0]),
    ['a', 'b', 'c'],
  );
  t.true(lines.includes('not in play: d, e'));
  t.true(lines.includes('smallest change: groups: dba; authentication.mfa: true'));
  t.true(whyLines(why).includes('no policy permits anything of this app'));
});

test('policy why - says what stands above all policies', (t) => {
  const lines = whyLines({ ...why, blockedBy: 'user_disabled', errors: ['p: no such attribute'] });
  t.deepEqual(lines.slice(1, 3), [
    'whatever policy says: user_disabled',
    'policy failed, which denies: p: no such attribute',
  ]);
  t.true(lines.includes('smallest change: not user_disabled'));
});

test('session show, policy why - a score names its parts', (t) => {
  const parts = [
    { name: 'failed_sign_ins', points: 24, detail: '6 in 15 min' },
    { name: 'unusual_hour', points: 5, detail: '' },
  ];
  t.is(
    riskText({ score: 29, contributions: parts }),
    '29: failed_sign_ins 24 (6 in 15 min), unusual_hour 5',
  );
  t.is(riskText({ score: 0, contributions: [] }), '0');
});

test('policy replay - says whether a decision comes out the same, and by which rules', (t) => {
  const replay = {
    decision: 'dec_1',
    app: 'wiki',
    policyVersion: 2,
    decidedAtMs: 0,
    lastConfirmedAtMs: 60_000,
    confirmations: 3,
    recorded: { verdict: 'allow', reasons: ['staff'] },
    replayed: { verdict: 'allow', reasons: ['staff'] },
    isSame: true,
    unasked: null,
    rules: [rule('staff', 'permits', true)],
  };
  t.deepEqual(replayLines(replay), [
    'dec_1 on wiki: allow by staff',
    'decided 1970-01-01T00:00:00.000Z, confirmed 3 times until 1970-01-01T00:01:00.000Z',
    'the same: allow by staff, by policy version 2',
    'staff permits (apps.cedar:3)',
    '  met      groups  staff',
  ]);
  const other = { ...replay, isSame: false, replayed: { verdict: 'deny', reasons: [] } };
  t.is(replayLines(other)[2], 'NOT THE SAME: deny, by policy version 2');
  const unasked = { ...replay, replayed: null, unasked: 'app_unknown', rules: [] };
  t.deepEqual(replayLines(unasked).slice(2), ['the same: policy was not asked, app_unknown']);
});
