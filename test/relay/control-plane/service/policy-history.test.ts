import anyTest, { type TestFn } from 'ava';
import { Rig, staffPolicy, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig; device: DevicePeer }>;

test.beforeEach('a deployment in which something was asked', async (t) => {
  const rig = await Rig.start();
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
  const identity = await rig.enrolConnector('berlin', ['wiki', 'mail']);
  const connector = await rig.connectConnector(identity, ['wiki', 'mail']);
  await rig.relay(connector);
  t.context.device = await rig.device('alice');
  await rig.untilRouted('wiki', t.context.device);
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

interface Replay {
  readonly isSame: boolean;
  readonly unasked: string | null;
  readonly policyVersion: number;
  readonly replayed: { readonly verdict: string } | null;
}

test.serial(
  'policy replay - decides a stored decision again, by the policy of its time',
  async (t) => {
    const { rig, device } = t.context;
    const why = await device.channel.request({ type: 'why', app: 'wiki' });
    const nobody = await device.channel.request({ type: 'why', app: 'nothing' });
    if (why.type !== 'why' || nobody.type !== 'why') throw new Error('no answer');
    await rig.admin('policy.apply', {
      files: { 'none.cedar': '@id("none") forbid (principal, action, resource);' },
    });
    const replay = (decision: string) => rig.admin<Replay>('policy.replay', { decision });
    t.like(await replay(why.decision), {
      isSame: true,
      policyVersion: 1,
      replayed: { verdict: 'allow', reasons: ['staff'] },
      unasked: null,
    });
    t.like(await replay(nobody.decision), { isSame: true, unasked: 'app_unknown', replayed: null });
    const later = await device.channel.request({ type: 'why', app: 'wiki' });
    if (later.type !== 'why') throw new Error('no answer');
    t.like(await replay(later.decision), {
      isSame: true,
      policyVersion: 2,
      replayed: { verdict: 'deny', reasons: ['none'] },
    });
    // A record that was tampered with does not come out as it says.
    const { store } = rig.plane.services;
    await store.write((tx) =>
      tx.updateTable('decisions').set({ verdict: 'deny' }).where('id', '=', why.decision).execute(),
    );
    t.false((await replay(why.decision)).isSame);
    await t.throwsAsync(replay('dec_nothing'), { code: 'ERR_CONFIG_NOT_FOUND' });
  },
);

test.serial('policy diff - tells who would gain or lose what, and changes nothing', async (t) => {
  const { rig, device } = t.context;
  for (const app of ['wiki', 'mail']) await device.channel.request({ type: 'why', app });
  const files = {
    'mail.cedar':
      '@id("mail") permit (principal, action == Action::"connect", resource == App::"mail");',
  };
  const diff = await rig.admin<{ compared: number; changes: unknown[] }>('policy.diff', {
    files,
    overMs: 60_000,
  });
  t.is(diff.compared, 2);
  t.is(diff.changes.length, 1);
  t.like(diff.changes[0], {
    user: 'alice',
    app: 'wiki',
    change: 'loses',
    situations: 1,
    because: ['staff'],
  });
  t.is(rig.plane.services.policy.version, 1);
  await rig.admin('policy.apply', { files });
  await device.channel.request({ type: 'why', app: 'wiki' });
  const back = await rig.admin<{ changes: unknown[] }>('policy.diff', {
    files: staffPolicy,
    overMs: 60_000,
  });
  t.like(back.changes[0], { app: 'wiki', change: 'gains', because: ['staff'] });
});
