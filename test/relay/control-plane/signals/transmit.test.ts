import { createHmac } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLocalJWKSet, jwtVerify, type JSONWebKeySet } from 'jose';
import type { DevicePeer } from '../service/rig.ts';
import { sayPosture } from '../service/say-posture.ts';
import { SignalRig, email, opaque } from './signal-rig.ts';
import { caep, OutsideServer } from './transmitter.ts';

const webhookSecret = 'a-secret-for-webhooks';
const receiverToken = 'a-secret-of-a-receiver';

interface Call {
  readonly url: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

/** A receiver of tokens and webhooks that keeps what it was told. */
class Receiver {
  server!: OutsideServer;
  readonly calls: Call[] = [];
  /** The next answers, in order; then 202. */
  readonly statuses: number[] = [];
  readonly #wake = new Set<() => void>();

  static async start(t: ExecutionContext): Promise<Receiver> {
    const all = new Receiver();
    all.server = await OutsideServer.start((request, body, response) => {
      all.calls.push({ url: request.url ?? '', body, headers: request.headers });
      response.writeHead(all.statuses.shift() ?? 202).end();
      for (const wake of [...all.#wake]) wake();
    });
    t.teardown(() => all.server.stop());
    return all;
  }

  until(isTrue: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!isTrue()) return;
        this.#wake.delete(look);
        resolve();
      };
      this.#wake.add(look);
      look();
    });
  }

  at(url: string): Call[] {
    return this.calls.filter((call) => call.url === url);
  }
}

async function start(
  t: ExecutionContext,
  receiver: Receiver,
  which: 'set' | 'webhook' | 'both' = 'both',
) {
  const files = new SignalRig();
  const outside = { allowPrivate: true, caFile: receiver.server.caFile(files.dir) };
  const all = await SignalRig.start({
    transmit:
      which === 'webhook'
        ? []
        : [
            {
              ...{ name: 'siem', url: receiver.server.url('/events'), audience: 'https://siem' },
              ...{
                tokenFile: files.file('siem', receiverToken),
                emailDomain: 'example.com',
                ...outside,
              },
            },
          ],
    webhooks:
      which === 'set'
        ? []
        : [
            {
              ...{ name: 'chat', url: receiver.server.url('/hook'), ...outside },
              secretFile: files.file('hook', webhookSecret),
            },
          ],
  });
  t.teardown(async () => {
    await all.stop();
    await files.stop();
  });
  await all.publish();
  return all;
}

async function verify(all: SignalRig, token: string) {
  const { text } = await all.ask('/.well-known/jwks.json');
  const keys = createLocalJWKSet(JSON.parse(text) as JSONWebKeySet);
  return jwtVerify(token, keys, {
    ...{ algorithms: ['RS256'], typ: 'secevent+jwt', audience: 'https://siem' },
    issuer: all.rig.url,
  });
}

test('transmit - a revoked session is told to receivers, in a token that our key set verifies', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'set');
  const device = await all.rig.device('alice');
  const { id } = await all.sessionOf(device);
  await all.rig.admin('revoke', { kind: 'session', id, reason: 'laptop_stolen' });
  await receiver.until(() => receiver.calls.length === 1);
  const [call] = receiver.calls;
  t.is(call?.headers['content-type'], 'application/secevent+jwt');
  t.is(call?.headers['authorization'], `Bearer ${receiverToken}`);
  const { payload } = await verify(all, call?.body ?? '');
  t.is(payload['sub'], undefined);
  t.is(payload['exp'], undefined);
  t.deepEqual(payload['sub_id'], {
    format: 'complex',
    user: { format: 'email', email: 'alice@example.com' },
    session: { format: 'opaque', id },
  });
  const events = payload['events'] as Record<string, Record<string, unknown>>;
  t.deepEqual(Object.keys(events), [`${caep}session-revoked`]);
  t.like(events[`${caep}session-revoked`], {
    initiating_entity: 'admin',
    reason_admin: { en: 'laptop_stolen' },
  });
});

test('transmit - a disabled device is not compliant, an enabled one is', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'set');
  const device = await all.rig.device('alice');
  await all.rig.admin('device.disable', { id: device.identity.id });
  await receiver.until(() => receiver.calls.length === 1);
  await all.rig.admin('device.enable', { id: device.identity.id });
  await receiver.until(() => receiver.calls.length === 2);
  const told = await Promise.all(receiver.calls.map(({ body }) => verify(all, body)));
  t.deepEqual(
    told.map(({ payload }) => {
      const events = payload['events'] as Record<string, Record<string, unknown>>;
      return events[`${caep}device-compliance-change`]?.['current_status'];
    }),
    ['not-compliant', 'compliant'],
  );
  t.deepEqual(
    (told[0]?.payload['sub_id'] as { device: unknown }).device,
    opaque(device.identity.id),
  );
});

test('transmit - posture that slips is told once, and once when it is mended', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver);
  all.rig.version = 3;
  await all.rig.admin('policy.apply', {
    files: {
      'disk.cedar':
        '@id("disk") permit (principal in Group::"staff", action == Action::"connect", resource == App::"wiki") when { context.posture.disk_encryption == "on" };',
    },
  });
  const device = await all.rig.device('alice');
  const say = async (disk: 'on' | 'off', firewall: 'on' | 'off') => {
    await sayPosture(all.rig, device, [
      ['disk_encryption', disk, 'lsblk'],
      ['firewall', firewall, 'nft'],
    ]);
    await device.channel.request({ type: 'status' }); // is answered behind the statement
    await all.rig.plane.services.compliance.settled();
  };
  await say('on', 'on'); // nothing to tell: it never was otherwise
  await say('off', 'on');
  await say('off', 'off'); // not what policy needs
  await receiver.until(() => receiver.calls.length === 2);
  await say('on', 'off');
  await receiver.until(() => receiver.calls.length === 4);
  const told = await Promise.all(receiver.at('/events').map(({ body }) => verify(all, body)));
  const changes = told.map(({ payload }) => {
    const events = payload['events'] as Record<string, Record<string, unknown>>;
    return events[`${caep}device-compliance-change`];
  });
  t.is(changes.length, 2);
  t.like(changes[0], {
    previous_status: 'compliant',
    current_status: 'not-compliant',
    initiating_entity: 'policy',
    reason_admin: { en: 'posture_unhealthy' },
  });
  t.like(changes[1], { current_status: 'compliant', reason_admin: { en: 'posture_healthy' } });
  t.deepEqual(told[0]?.payload['sub_id'], {
    format: 'complex',
    user: { format: 'email', email: 'alice@example.com' },
    device: opaque(device.identity.id),
  });
  const records = await all.rig.plane.services.store.db
    .selectFrom('audit')
    .select('detailsJson')
    .where('action', '=', 'device.compliance')
    .orderBy('position')
    .execute();
  t.deepEqual(
    records.map(({ detailsJson }) => JSON.parse(detailsJson) as unknown),
    [
      { status: 'not-compliant', reason: 'posture_unhealthy', facts: ['disk_encryption'] },
      { status: 'compliant', reason: 'posture_healthy', facts: [] },
    ],
  );
});

test('transmit - a policy that asks for more finds a device wanting with its next statement, also after a restart', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'webhook');
  all.rig.version = 3;
  const first = await all.rig.device('alice');
  const say = async (device: DevicePeer) => {
    await sayPosture(all.rig, device, [['firewall', 'off', 'nft']]);
    await device.channel.request({ type: 'status' });
    await all.rig.plane.services.compliance.settled();
  };
  await say(first);
  const files = {
    'wall.cedar':
      '@id("wall") permit (principal, action, resource) when { context.posture.firewall == "on" };',
  };
  await all.rig.admin('policy.apply', { files });
  await say(first);
  await receiver.until(() => receiver.calls.length === 1);
  t.like(JSON.parse(receiver.calls[0]?.body ?? '') as object, {
    type: 'device-compliance-change',
    status: 'not-compliant',
    reason: 'posture_unhealthy',
    subject: { user: 'alice', device: first.identity.id },
  });
  await all.rig.plane.stop();
  await all.rig.startPlane();
  await say(await all.rig.connectDevice(first.identity));
  const records = await all.rig.plane.services.store.db
    .selectFrom('audit')
    .select('action')
    .where('action', '=', 'device.compliance')
    .execute();
  t.is(records.length, 1);
});

test('transmit - a device whose word changes all the time is put on record a few times only', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'webhook');
  all.rig.version = 3;
  const files = {
    'wall.cedar':
      '@id("wall") permit (principal, action, resource) when { context.posture.firewall == "on" };',
  };
  await all.rig.admin('policy.apply', { files });
  const device = await all.rig.device('alice');
  for (let count = 0; count < 20; count++) {
    await sayPosture(all.rig, device, [['firewall', count % 2 === 0 ? 'off' : 'on', 'nft']]);
    await device.channel.request({ type: 'status' });
    await all.rig.plane.services.compliance.settled();
  }
  const records = await all.rig.plane.services.store.db
    .selectFrom('audit')
    .select('action')
    .where('action', '=', 'device.compliance')
    .execute();
  t.true(records.length >= 2 && records.length < 10, String(records.length));
});

test('transmit - receivers find the key set by the configuration, and the key is its owner’s alone', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'set');
  const { text } = await all.ask('/.well-known/ssf-configuration');
  const configuration = JSON.parse(text) as Record<string, unknown>;
  t.like(configuration, { issuer: all.rig.url, jwks_uri: `${all.rig.url}/.well-known/jwks.json` });
  const keys = await all.ask('/.well-known/jwks.json');
  t.false(/"[dpq]"/.test(keys.text), 'no private part');
  t.is(statSync(join(all.rig.dir, 'control-plane', 'signal-key.pem')).mode & 0o777, 0o600);
});

test('transmit - nothing of it is served where nothing is transmitted', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'webhook');
  t.is((await all.ask('/.well-known/jwks.json')).status, 404);
  t.is((await all.ask('/.well-known/ssf-configuration')).status, 404);
});

test('transmit - what a signal of others did is told to webhooks, and never sent back as a token', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver);
  await all.rig.device('alice');
  await all.tell('idp', `${caep}session-revoked`, {}, email('alice'));
  await receiver.until(() => receiver.at('/hook').length === 1);
  await all.rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'x' });
  await receiver.until(
    () => receiver.at('/hook').length === 2 && receiver.at('/events').length === 1,
  );
  t.is((JSON.parse(receiver.at('/hook')[0]?.body ?? '{}') as { isEcho: boolean }).isEcho, true);
  t.is(receiver.at('/events').length, 1);
});

test('webhook - is signed over time and body', async (t) => {
  const receiver = await Receiver.start(t);
  const all = await start(t, receiver, 'webhook');
  await all.rig.device('alice');
  await all.rig.admin('user.disable', { name: 'alice' });
  await receiver.until(() => receiver.calls.length === 1);
  const { headers, body } = receiver.calls[0]!;
  const timestamp = String(headers['ztna-webhook-timestamp']);
  const hmac = createHmac('sha256', webhookSecret).update(`${timestamp}.${body}`).digest('hex');
  t.is(headers['ztna-webhook-signature'], `v1=${hmac}`);
  const event = JSON.parse(body) as Record<string, unknown>;
  t.is(headers['ztna-webhook-id'], event['id']);
  t.like(event, {
    type: 'session-revoked',
    reason: 'user_disable',
    initiator: 'admin',
    subject: { user: 'alice', device: null, session: null },
  });
});

test('delivery - is tried again after a failure, with the same token', async (t) => {
  const receiver = await Receiver.start(t);
  receiver.statuses.push(500, 503);
  const all = await start(t, receiver, 'set');
  await all.rig.device('alice');
  await all.rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'x' });
  await receiver.until(() => receiver.calls.length === 3);
  t.is(new Set(receiver.calls.map(({ body }) => body)).size, 1);
});

test('delivery - what is not delivered when the control plane stops is delivered by the next one', async (t) => {
  const receiver = await Receiver.start(t);
  receiver.statuses.push(...Array.from({ length: 3 }, () => 500));
  const all = await start(t, receiver, 'webhook');
  await all.rig.device('alice');
  await all.rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'x' });
  await receiver.until(() => receiver.calls.length >= 1);
  await all.rig.plane.stop();
  receiver.statuses.length = 0;
  const before = receiver.calls.length;
  await all.rig.startPlane();
  await receiver.until(() => receiver.calls.length > before);
  t.is(new Set(receiver.calls.map(({ body }) => body)).size, 1);
});

test('delivery - what a receiver refuses is dead, listed, and goes again when an administrator says so', async (t) => {
  const receiver = await Receiver.start(t);
  receiver.statuses.push(400);
  const all = await start(t, receiver, 'set');
  await all.rig.device('alice');
  await all.rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'x' });
  await receiver.until(() => receiver.calls.length === 1);
  const dead = await untilListed(all);
  t.like(dead, {
    target: 'set siem',
    event: 'session-revoked',
    attempts: 1,
    lastError: 'the receiver answered 400',
  });
  const listed = await all.rig.admin<Record<string, unknown>[]>('signal.list');
  t.like(
    listed.find(({ name }) => name === 'siem'),
    { kind: 'set', refused: 1, waiting: 0 },
  );
  await all.rig.admin('signal.retry', { id: dead['id'] });
  await receiver.until(() => receiver.calls.length === 2);
  const [first, second] = await Promise.all(receiver.calls.map(({ body }) => verify(all, body)));
  t.not(first?.payload.jti, second?.payload.jti, 'the receiver knows the old one');
  t.deepEqual(first?.payload['events'], second?.payload['events']);
  await t.throwsAsync(all.rig.admin('signal.retry', { id: 'sig_none' }), {
    code: 'ERR_CONFIG_NOT_FOUND',
  });
});

/** The dead letter, once the answer has been written down. */
async function untilListed(all: SignalRig): Promise<Record<string, unknown>> {
  for (;;) {
    const [dead] = await all.rig.admin<Record<string, unknown>[]>('signal.dead');
    if (dead) return dead;
    await new Promise(setImmediate); // what it waits for needs the loop
  }
}
