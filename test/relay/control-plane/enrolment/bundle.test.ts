import anyTest, { type TestFn } from 'ava';
import { renewBundle } from '../../../../relay/control-plane/enrolment/bundle.ts';
import { Rig, staffPolicy } from '../service/rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;
const dayMs = 86_400_000;

test.before(async (t) => {
  t.context.rig = await Rig.start();
});
test.after.always(async (t) => {
  await t.context.rig.stop();
});

test.serial(
  'renewBundle - in the second half of its life it is signed anew and told to everyone',
  async (t) => {
    const { rig } = t.context;
    await rig.admin('policy.apply', { files: staffPolicy });
    const connector = await rig.connector('berlin', ['wiki']);
    const peers = [connector, await rig.relay(connector), await rig.device('alice')];
    const { services } = rig.plane;
    const later = (days: number) => ({ nowMs: () => services.clock.nowMs() + days * dayMs });

    t.false(await renewBundle(services, later(180)));
    t.is(services.bundle.version, 1);
    t.true(await renewBundle(services, later(200)));
    t.false(await renewBundle(services, later(201)));
    t.is(services.bundle.version, 2);
    for (const peer of peers) {
      while (peer.bundles.length === 0) await new Promise(setImmediate);
      t.deepEqual(
        peer.bundles.map((bundle) => [bundle.version, bundle.statement]),
        [[2, services.bundle.statement]],
      );
      const [bundle] = peer.bundles;
      t.true((bundle?.notAfterMs ?? 0) > services.clock.nowMs() + 560 * dayMs);
    }

    const late = await rig.device('bob');
    t.is(late.bundles[0]?.version ?? late.identity.bundle.version, 2);
    const [record] = (await services.audit.read({ latest: true, limit: 1_000 })).filter(
      ({ action }) => action === 'bundle.renew',
    );
    t.is(record?.subject, 'version 2');
  },
);

test.serial('renewBundle - a start finds the newest one', async (t) => {
  const { rig } = t.context;
  const { bundle } = rig.plane.services;
  await rig.plane.stop();
  await rig.startPlane();
  t.deepEqual(rig.plane.services.bundle, bundle);
});
