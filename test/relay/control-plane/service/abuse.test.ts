import anyTest, { type TestFn } from 'ava';
import { enrolPath, newId, ZtnaError } from '../../../../protocol/index.ts';
import { requestEnrolment } from '../../../../protocol/host/enrolment-request.ts';
import { readCounter } from '../../../../relay/control-plane/store/index.ts';
import { defaultLimits } from '../../../../relay/control-plane/settings.ts';
import { password, Rig, staffPolicy, type DevicePeer } from './rig.ts';

interface Context {
  rig: Rig;
}
const test = anyTest as TestFn<Context>;

test.before('a deployment', async (t) => {
  const rig = await Rig.start({ limits: { ...defaultLimits, questionsPerMinute: 1 } });
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error: unknown) => (error instanceof ZtnaError ? error.code : String(error)),
  );
}

test.serial('apps, why - one device cannot keep the control plane busy with them', async (t) => {
  const { rig } = t.context;
  const device = await rig.device('alice');
  const ask = async (of: DevicePeer): Promise<string> =>
    codeOf(of.channel.request({ type: 'apps' }));
  const asked = [];
  for (let i = 0; i < 31; i++) asked.push(await ask(device));
  t.deepEqual(new Set(asked.slice(0, 30)), new Set(['none']));
  t.is(asked[30], 'ERR_LIMIT_RATE');
  t.is(await codeOf(device.channel.request({ type: 'why', app: 'wiki' })), 'ERR_LIMIT_RATE');
  t.is(await codeOf(device.channel.request({ type: 'status' })), 'none');
  t.is(await ask(await rig.device('bob')), 'none');
});

test.serial(
  'sign_in - on another user’s device a right password looks like a wrong one',
  async (t) => {
    const { rig } = t.context;
    const owner = await rig.device('carol');
    await owner.channel.request({ type: 'otp_begin' });
    await rig.plane.services.store.write((tx) =>
      tx.updateTable('totpSecrets').set({ confirmed: 1 }).execute(),
    );
    const other = await rig.device('eve');
    const trial = (text: string): Promise<string> =>
      codeOf(other.channel.request({ type: 'sign_in', user: 'carol', password: text, otp: null }));
    t.is(await trial('not-the-password-of-carol'), 'ERR_IDENTITY_SIGN_IN_REFUSED');
    t.is(await trial(password), 'ERR_IDENTITY_SIGN_IN_REFUSED');
    const own = { type: 'sign_in', user: 'carol', password, otp: null } as const;
    t.is(await codeOf(owner.channel.request(own)), 'ERR_IDENTITY_OTP_NEEDED');
  },
);

test.serial('reports - those on tunnels that nobody knows cost no write', async (t) => {
  const { rig } = t.context;
  const device = await rig.device('mallory');
  const connector = await rig.connector('cairo', ['db']);
  rig.version = 2;
  const newer = await rig.connector('lima', ['files']);
  rig.version = 1;
  await rig.settled();
  const { store } = rig.plane.services;
  const fencing = async () => readCounter(store.db, 'fencing');
  const before = await fencing();
  const write = store.write.bind(store);
  let writes = 0;
  store.write = (change) => {
    writes++;
    return write(change);
  };
  const end = { bytesUp: 1, bytesDown: 1, reason: 'made_up', code: 'ERR_TUNNEL_CLOSED' } as const;
  for (let i = 0; i < 20; i++) {
    const tunnel = newId('tunnel');
    connector.channel.send({ type: 'tunnel_opened', tunnel });
    connector.channel.send({ type: 'tunnel_closed', tunnel, ...end });
    newer.channel.send({ type: 'tunnel_detached', tunnel, generation: 1, reason: 'made_up' });
    newer.channel.send({ type: 'tunnel_resumed', tunnel, generation: 2 });
    device.channel.send({ type: 'tunnel_closed', tunnel, reason: 'made_up' });
  }
  await device.channel.request({ type: 'status' }); // answered in order
  for (const { channel } of [connector, newer]) {
    const apps = ['after'];
    channel.send({ type: 'apps', apps });
  }
  const { peers } = rig.plane.services;
  while (![...peers.connectors.values()].every((peer) => peer.apps.has('after'))) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.true(writes < 20, `${writes} writes for 100 reports`); // timers write as well
  store.write = write;
  const again = await rig.connectDevice(
    device.identity,
    Array.from({ length: 20 }, () => newId('tunnel')),
  );
  await again.channel.request({ type: 'status' });
  t.is(await fencing(), before);
});

// The last: from here on this address may enrol nothing.
test.serial(
  'enrolment - a flood of refusals makes a bounded number of audit records',
  async (t) => {
    const { rig } = t.context;
    const requests = Array.from({ length: 160 }, () =>
      codeOf(requestEnrolment({ url: rig.url, trust: null }, enrolPath, '{}')),
    );
    const codes = new Set(await Promise.all(requests));
    t.deepEqual([...codes].sort(), ['ERR_LIMIT_RATE', 'ERR_MESSAGE_MALFORMED']);
    await rig.settled();
    const rows = await rig.admin<{ action: string }[]>('audit.tail', { limit: 1_000 });
    const refused = rows.filter((row) => row.action === 'identity.enrol').length;
    t.true(refused >= 120 && refused < 140, `${refused} records`);
  },
);
