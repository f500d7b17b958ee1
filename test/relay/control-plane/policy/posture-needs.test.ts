import test from 'ava';
import { postureNeedsOf } from '../../../../relay/control-plane/policy/index.ts';
import { context, engineWith, permitWhen, request } from './policy-fixture.ts';

const needs = async (condition: string, posture: object = {}) =>
  postureNeedsOf(await engineWith(permitWhen(condition)), {
    ...request,
    context: { ...context, posture: { ...context.posture, ...posture } },
  });

test('postureNeedsOf - an allowed app needs the facts that carry it, as its rule asks for them', async (t) => {
  const condition =
    'context.posture.disk_encryption == "on" && context.posture.os_version_number >= 14000000 && (context.posture.firewall == "on" || true)';
  t.deepEqual(await needs(condition), [
    { what: 'posture.disk_encryption', actual: 'on', required: 'on', met: true },
    { what: 'posture.os_version_number', actual: '14.5.1', required: '>= 14.0.0', met: true },
  ]);
});

test('postureNeedsOf - a denied app needs what its user can mend, as its rule asks for it', async (t) => {
  const condition =
    'context.posture.disk_encryption == "on" && context.posture.os_version_number >= 15000000';
  t.deepEqual(await needs(condition, { disk_encryption: 'off' }), [
    { what: 'posture.disk_encryption', actual: 'off', required: 'on', met: false },
    { what: 'posture.os_version_number', actual: '14.5.1', required: '>= 15.0.0', met: false },
  ]);
});

test('postureNeedsOf - tells nothing of an app that waits for the risk to fall, or that nothing would open', async (t) => {
  t.deepEqual(
    await needs('context.posture.disk_encryption == "on" && context.risk.score < 5', {
      disk_encryption: 'off',
    }),
    [],
  );
  t.deepEqual(
    await needs('context.posture.disk_encryption == "on" && principal in Group::"x"'),
    [],
  );
});
