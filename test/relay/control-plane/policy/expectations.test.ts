import test from 'ava';
import {
  checkExpectations,
  parseExpectations,
} from '../../../../relay/control-plane/policy/index.ts';
import { engineWith } from './policy-fixture.ts';

const policies = {
  'wiki.cedar':
    '@id("wiki") permit (principal in Group::"staff", action == Action::"connect", resource == App::"wiki") when { context.posture.disk_encryption == "on" && context.time.hour < 20 };',
};

const run = async (text: string) =>
  checkExpectations(await engineWith(policies), parseExpectations(text, 'tests.yaml').tests, 0);

test('checkExpectations - holds what a team expects, by whom, and at which hour', async (t) => {
  const outcomes = await run(`
tests:
  - { user: alice, groups: [staff], app: wiki, posture: { disk_encryption: on }, at: "2026-11-20T09:00:00Z", expect: allow, by: [wiki] }
  - { user: alice, groups: [staff], app: wiki, posture: { disk_encryption: on }, at: "2026-11-20T21:00:00Z", expect: deny }
  - { user: alice, groups: [staff], app: wiki, expect: deny }
  - { user: bob, app: wiki, posture: { disk_encryption: on }, expect: deny, by: [] }
`);
  t.deepEqual(
    outcomes.map(({ passed }) => passed),
    [true, true, true, true],
  );
});

test('checkExpectations - tells what was expected, what came, and what would have helped', async (t) => {
  const [outcome, byAnother] = await run(`
tests:
  - { name: encrypted only, user: alice, groups: [staff], app: wiki, posture: { disk_encryption: off }, at: "2026-11-20T09:00:00Z", expect: allow }
  - { user: alice, groups: [staff], app: wiki, posture: { disk_encryption: on }, at: "2026-11-20T09:00:00Z", expect: allow, by: [other] }
`);
  t.like(outcome, {
    name: 'encrypted only',
    passed: false,
    expected: 'allow',
    actual: 'deny',
    conditions: [{ what: 'posture.disk_encryption', actual: 'off', required: 'on' }],
  });
  t.like(byAnother, { passed: false, expected: 'allow by other', by: ['wiki'] });
});

test('checkExpectations - a fact that policies cannot read fails the test that tells it', async (t) => {
  const [outcome] = await run(`
tests:
  - { user: alice, groups: [staff], app: wiki, posture: { disk_encryptoin: on }, expect: deny }
`);
  t.false(outcome?.passed);
  t.not(outcome?.errors.length, 0);
});

test('parseExpectations - names what it cannot read', (t) => {
  const cases: [string, RegExp][] = [
    ['tests: [', /tests\.yaml: /],
    ['tests: []', /tests/],
    ['tests: [{ user: a, app: b }]', /tests\.0\.expect/],
    ['tests: [{ user: a, app: b, expect: maybe }]', /tests\.0\.expect/],
    ['tests: [{ user: a, app: b, expect: allow, exepct: deny }]', /exepct/],
    ['a: &x [1]\ntests: *x', /./],
  ];
  for (const [text, message] of cases) {
    t.throws(() => parseExpectations(text, 'tests.yaml'), {
      code: 'ERR_CONFIG_INVALID',
      message,
    });
  }
});
