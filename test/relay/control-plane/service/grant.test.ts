import anyTest, { type TestFn } from 'ava';
import {
  grantSchema,
  leaseLengthMs,
  rosterEntrySchema,
  verifyPermit,
  verifyStatement,
  ZtnaError,
} from '../../../../protocol/index.ts';
import { defaultLimits } from '../../../../relay/control-plane/settings.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  connector: ConnectorPeer;
  relay: RelayPeer;
  device: DevicePeer;
}
const test = anyTest as TestFn<Context>;

test.before('a deployment with one reachable and one forbidden app', async (t) => {
  const rig = await Rig.start();
  t.context.rig = rig;
  await rig.admin('policy.apply', {
    files: {
      ...staffPolicy,
      'vault.cedar':
        '@id("no-vault") forbid (principal, action == Action::"connect", resource == App::"vault");',
      'care.cedar':
        '@id("care") forbid (principal, action == Action::"connect", resource == App::"ledger") unless { context.authentication.mfa };',
    },
  });
  t.context.connector = await rig.connector('berlin', ['wiki', 'vault', 'ledger']);
  t.context.relay = await rig.relay(t.context.connector);
  t.context.device = await rig.device('alice');
  await rig.untilRouted('wiki', t.context.device);
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

test.serial('grant - an allowed app is granted with everything the ends check', async (t) => {
  const { device, connector, relay, rig } = t.context;
  const permit = await device.channel.request({ type: 'grant', app: 'wiki' });
  if (permit.type !== 'permit') throw new Error('no permit');
  const { bundle, noisePublicKey, id } = device.identity;
  const at = {
    bundle,
    device: id,
    deviceKey: noisePublicKey,
    nowMs: rig.plane.services.clock.nowMs(),
  };
  t.notThrows(() => verifyPermit(permit, at));
  const grant = verifyStatement('grant', grantSchema, permit.grant, bundle.grantKeys);
  t.is(grant.connector, connector.identity.id as never);
  t.is(grant.instance, connector.instance as never);
  t.deepEqual(grant.relays, [relay.identity.id as never]);
  t.is(grant.intervalMs, 20_000);
  t.true(grant.untilMs - grant.issuedAtMs <= leaseLengthMs(20_000));
  t.is(grant.generation, 1);
  const roster = verifyStatement('roster', rosterEntrySchema, permit.roster, bundle.rosterKeys);
  t.is(roster.noiseKey, connector.identity.noisePublicKey.toString('base64url'));

  const tunnel = await rig.admin('tunnel.show', { id: grant.tunnel });
  t.is(tunnel['state'], 'granted');
  const decision = await rig.admin('decision.show', { id: grant.decision });
  t.is(decision['verdict'], 'allow');
  t.deepEqual(decision['reasons'], ['staff']);
  const records = await rig.admin<{ ref: string; action: string }[]>('audit.tail', { limit: 50 });
  t.true(records.some((row) => row.action === 'decision.made' && row.ref === grant.decision));
});

/** The refusal as text, with the one member that must differ taken out. */
async function refusalText(device: DevicePeer, app: string): Promise<string> {
  const error = await t0(device.channel.request({ type: 'grant', app }));
  const { code, message, hint, ref, hop } = error;
  return JSON.stringify({ code, message, hint, hop, ref: ref?.replace(/_.*/, '') });
}

async function t0(promise: Promise<unknown>): Promise<ZtnaError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof ZtnaError) return error;
    throw error;
  }
  throw new Error('it was granted');
}

test.serial(
  'grant, why, apps - a denied app and an unknown one are the same to the user',
  async (t) => {
    const { device } = t.context;
    const denied = await refusalText(device, 'vault');
    t.is(denied, await refusalText(device, 'no-such-app'));
    t.regex(denied, /ERR_POLICY_DENIED/);

    const why = async (app: string) => {
      const answer = await device.channel.request({ type: 'why', app });
      return JSON.stringify({ ...answer, id: 0, app: '', decision: '' });
    };
    t.is(await why('vault'), await why('no-such-app'));

    const apps = await device.channel.request({ type: 'apps' });
    t.deepEqual(apps.type === 'apps' && apps.apps.map((row) => row.name).sort(), [
      'ledger',
      'wiki',
    ]);
  },
);

test.serial(
  'grant - an app that a second factor would open is named with that remedy',
  async (t) => {
    const { device } = t.context;
    const error = await t0(device.channel.request({ type: 'grant', app: 'ledger' }));
    t.is(error.code, 'ERR_IDENTITY_OTP_NEEDED');
    t.regex(error.hint ?? '', /ztna mfa add/);
    const why = await device.channel.request({ type: 'why', app: 'ledger' });
    t.true(why.type === 'why' && why.conditions.some((row) => row.what === 'authentication.mfa'));
  },
);

test.serial('grant - only an allowed app is told to be offline', async (t) => {
  const { rig, device } = t.context;
  await rig.admin('site.add', { name: 'empty' });
  await rig.admin('app.add', { name: 'lonely', site: 'empty' });
  const error = await t0(device.channel.request({ type: 'grant', app: 'lonely' }));
  t.is(error.code, 'ERR_CONNECTOR_OFFLINE');
  await rig.admin('app.remove', { name: 'lonely' });
});

test.serial(
  'grant - without a session the user must sign in, and a wrong password is refused alike',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('carol');
    await device.channel.request({ type: 'sign_out' });
    const error = await t0(device.channel.request({ type: 'grant', app: 'wiki' }));
    t.is(error.code, 'ERR_IDENTITY_SIGN_IN_NEEDED');
    const wrong = await t0(
      device.channel.request({
        type: 'sign_in',
        user: 'carol',
        password: 'not it at all',
        otp: null,
      }),
    );
    const unknown = await t0(
      device.channel.request({
        type: 'sign_in',
        user: 'nobody',
        password: 'not it at all',
        otp: null,
      }),
    );
    t.is(wrong.code, 'ERR_IDENTITY_SIGN_IN_REFUSED');
    t.is(wrong.message, unknown.message);
    // The right password of somebody else does not sign in on this device.
    const other = await t0(
      device.channel.request({
        type: 'sign_in',
        user: 'alice',
        password: 'correct-horse-of-a-test',
        otp: null,
      }),
    );
    t.is(other.code, 'ERR_IDENTITY_SIGN_IN_REFUSED');
  },
);

test.serial(
  'grant - one tunnel more than a device may have is refused with what to do, until one ends',
  async (t) => {
    const limits = { ...defaultLimits, tunnelsPerDevice: 2 };
    const rig = await Rig.start({ limits });
    t.teardown(() => rig.stop());
    await rig.admin('policy.apply', { files: staffPolicy });
    const connector = await rig.connector('berlin', ['wiki']);
    await rig.relay(connector);
    const device = await rig.device('alice');
    await rig.untilRouted('wiki', device);
    const ask = () => device.channel.request({ type: 'grant', app: 'wiki' });
    const first = await ask();
    await ask();
    const error = await t0(ask());
    t.is(error.code, 'ERR_LIMIT_TUNNELS');
    t.is(error.message, 'this device has 2 tunnels, as many as it may');
    t.regex(error.hint ?? '', /^end a/);
    if (first.type !== 'permit') throw new Error('no permit');
    const { tunnel } = verifyStatement(
      'grant',
      grantSchema,
      first.grant,
      device.identity.bundle.grantKeys,
    );
    device.channel.send({ type: 'tunnel_closed', tunnel, reason: 'closed_here' });
    t.is((await ask()).type, 'permit');
  },
);
