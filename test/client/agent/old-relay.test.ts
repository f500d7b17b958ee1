import test from 'ava';
import { AgentRig } from './agent-rig.ts';

test('Agent - sends an older control plane nothing that it does not know, and says so', async (t) => {
  const rig = await AgentRig.start(t);
  rig.version = 3;
  rig.answer = ({ type }) => (type === 'sign_out' ? { type: 'done' } : undefined);
  const agent = await rig.agent(t);
  t.false(agent.knowsIdentity);
  for (const type of ['providers', 'devices', 'factors'] as const) {
    await t.throwsAsync(agent.request({ type }), {
      code: 'ERR_RELAY_UNAVAILABLE',
      message: /older than this command/,
    });
  }
  t.is((await agent.request({ type: 'sign_out' })).type, 'done');
  t.deepEqual(rig.received, []);
});
