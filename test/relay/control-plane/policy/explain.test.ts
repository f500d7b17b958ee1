import test from 'ava';
import { explainDecision, unknownPosture } from '../../../../relay/control-plane/policy/index.ts';
import { context, engineWith, permitAll, permitWhen, request } from './policy-fixture.ts';

const explain = async (condition: string, changes: object = {}) =>
  explainDecision(await engineWith(permitWhen(condition)), {
    ...request,
    context: { ...context, ...changes },
  });

test('explainDecision - has no remedy for what is allowed or never would be', async (t) => {
  t.like(await explain('true'), {
    verdict: 'allow',
    remedies: [],
    permitting: ['p'],
    forbidding: [],
  });
  t.like(await explain('context.device.platform == "plan9"'), {
    verdict: 'deny',
    remedies: [],
    conditions: [],
  });
});

test('explainDecision - names the posture facts that matter and no others', async (t) => {
  const explanation = await explain(
    'context.posture.disk_encryption == "on" && context.posture.firewall == "on"',
    { posture: { ...context.posture, disk_encryption: 'off', antivirus: 'off' } },
  );
  t.like(explanation, { verdict: 'deny' });
  t.deepEqual(explanation.remedies, ['posture']);
  t.deepEqual(explanation.conditions, [
    { what: 'posture.disk_encryption', actual: 'off', required: 'on' },
  ]);
});

test('explainDecision - tells an old system and a silent device', async (t) => {
  const old = await explain('context.posture.os_version_number >= 15000000');
  t.deepEqual(old.conditions, [
    { what: 'posture.os_version_number', actual: '14005001', required: 'newer' },
  ]);
  const silent = await explain('context.posture.age_seconds < 60', { posture: unknownPosture([]) });
  t.deepEqual(silent.remedies, ['posture']);
  t.like(silent.conditions[0], { what: 'posture.age_seconds', required: 'recent' });
});

test('explainDecision - prefers signing in again to a second factor, and takes what it needs', async (t) => {
  const fresh = await explain('context.authentication.age_seconds < 60');
  t.deepEqual(fresh.remedies, ['sign_in']);
  t.deepEqual(fresh.conditions, [
    { what: 'authentication.age_seconds', actual: '600', required: 'recent' },
  ]);
  const factor = await explain('context.authentication.mfa');
  t.deepEqual(factor.remedies, ['step_up']);
  t.deepEqual(factor.conditions, [
    { what: 'authentication.mfa', actual: 'false', required: 'true' },
  ]);
});

test('explainDecision - finds the smallest of several changes together', async (t) => {
  const condition =
    'context.authentication.mfa && context.posture.screen_lock == "on" && context.risk.score < 50';
  const both = await explain(condition);
  t.deepEqual(both.remedies, ['step_up', 'posture']);
  const all = await explain(condition, { risk: { score: 80, factors: ['new_country'] } });
  t.deepEqual(all.remedies, ['step_up', 'posture', 'risk']);
  t.deepEqual(all.conditions.map(({ what }) => what).sort(), [
    'authentication.mfa',
    'posture.screen_lock',
    'risk.score',
  ]);
  const risky = await explain('context.risk.score < 50', { risk: { score: 80, factors: [] } });
  t.deepEqual(risky.remedies, ['risk']);
});

test('explainDecision - says which policies permit and which forbid', async (t) => {
  const engine = await engineWith(
    {
      'a.cedar': `@id("all") ${permitAll}
@id("healthy") forbid (principal, action, resource) unless { context.posture.edr == "on" };`,
    },
    ['edr'],
  );
  const posture = { ...unknownPosture(['edr']), disk_encryption: 'on' } as const;
  const explanation = explainDecision(engine, { ...request, context: { ...context, posture } });
  t.like(explanation, { verdict: 'deny', permitting: ['all'], forbidding: ['healthy'] });
  t.deepEqual(explanation.conditions, [{ what: 'posture.edr', actual: 'unknown', required: 'on' }]);
});

test('explainDecision - offers no remedy when the evaluation failed', async (t) => {
  const explanation = await explain('true', { network: { address: 'x', country: '' } });
  t.like(explanation, { verdict: 'deny', remedies: [], conditions: [] });
  t.is(explanation.errors.length, 1);
});
