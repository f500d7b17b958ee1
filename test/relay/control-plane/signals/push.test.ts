import type { IncomingMessage, ServerResponse } from 'node:http';
import anyTest, { type TestFn } from 'ava';
import { decodeJwt } from 'jose';
import { toZtnaError } from '../../../../protocol/index.ts';
import { readRiskMarks } from '../../../../relay/control-plane/signals/marks.ts';
import { PushReceiver } from '../../../../relay/control-plane/signals/push.ts';
import type { SignalEffects } from '../../../../relay/control-plane/signals/effects.ts';
import type { Services } from '../../../../relay/control-plane/services.ts';
import { TestClock } from '../fixture.ts';
import { prune } from '../../../../relay/control-plane/signals/start.ts';
import { email, opaque, pushToken, SignalRig } from './signal-rig.ts';
import { caep, claimsOf, risc, sign, ssf } from './transmitter.ts';

const test = anyTest as TestFn<{ all: SignalRig }>;

test.before('a control plane that receives two streams', async (t) => {
  t.context.all = await SignalRig.start();
  await t.context.all.publish();
});

test.after.always('stop', async (t) => {
  await t.context.all.stop();
});

test.serial(
  'push - session-revoked closes the user’s tunnels and asks for a sign-in',
  async (t) => {
    const { all } = t.context;
    const device = await all.user('alice');
    const other = await all.user('bob');
    const tunnel = await all.tunnel(device);
    await all.tunnel(other);
    await all.tell(
      'idp',
      `${caep}session-revoked`,
      { reason_admin: { en: 'stolen' } },
      email('alice'),
    );
    t.is(await all.ended(device, tunnel), 'signal_session_revoked');
    t.not((await all.sessionOf(device)).endedAtMs, null);
    t.is((await all.sessionOf(other)).endedAtMs, null);
    const entries = await all.relay.find((message) => (message.type === 'log' ? true : undefined));
    t.true(entries);
    const answer = await device.channel
      .request({ type: 'grant', app: 'wiki' })
      .catch((error: unknown) => error);
    t.like(answer, { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' });
    t.like((await all.records()).at(-1), {
      outcome: 'ok',
      userName: 'alice',
      details: { event: 'session-revoked', effect: 'end_sessions', tunnelsEnded: 1, why: 'stolen' },
    });
  },
);

test.serial('push - a session of two that is named ends, and the other goes on', async (t) => {
  const { all } = t.context;
  const first = await all.user('carol');
  const second = await all.user('carol');
  const { id } = await all.sessionOf(first);
  const kept = await all.tunnel(second);
  const tunnel = await all.tunnel(first);
  await all.tell(
    'idp',
    `${caep}session-revoked`,
    {},
    {
      format: 'complex',
      user: email('carol'),
      session: opaque(id),
    },
  );
  await all.ended(first, tunnel);
  t.is((await all.sessionOf(second)).endedAtMs, null);
  t.is(all.rig.plane.services.tunnels.get(kept.tunnel)?.state, 'open');
});

for (const [what, uri, payload] of [
  [
    'credential-change',
    `${caep}credential-change`,
    { credential_type: 'password', change_type: 'update' },
  ],
  ['token-claims-change', `${caep}token-claims-change`, { claims: { groups: [] } }],
  ['account-credential-change-required', `${risc}account-credential-change-required`, {}],
] as const) {
  test.serial(`push - ${what} ends sessions, so that the user signs in again`, async (t) => {
    const { all } = t.context;
    const name = what.replaceAll('-', '.');
    const device = await all.user(name);
    const tunnel = await all.tunnel(device);
    await all.tell('idp', uri, payload, email(name));
    t.not((await all.sessionOf(device)).endedAtMs, null);
    t.regex(await all.ended(device, tunnel), /^signal_/);
  });
}

test.serial(
  'push - a lower assurance level takes the second factor away, and what needs it',
  async (t) => {
    const { all } = t.context;
    const device = await all.user('dave');
    const { id } = await all.sessionOf(device);
    const { store } = all.rig.plane.services;
    const methodsJson = '["password","totp"]';
    await store.write((tx) =>
      tx.updateTable('sessions').set({ methodsJson }).where('id', '=', id).execute(),
    );
    const vault = await all.tunnel(device, 'vault');
    const wiki = await all.tunnel(device, 'wiki');
    const levels = {
      namespace: 'NIST-AAL',
      current_level: 'nist-aal1',
      previous_level: 'nist-aal2',
    };
    await all.tell('idp', `${caep}assurance-level-change`, levels, email('dave'));
    await all.ended(device, vault);
    t.is((await all.sessionOf(device)).methodsJson, '["password"]');
    t.is(all.rig.plane.services.tunnels.get(wiki.tunnel)?.state, 'open');
    // A higher level gives nothing back.
    const higher = { ...levels, current_level: 'nist-aal3', change_direction: 'increase' };
    await all.tell('idp', `${caep}assurance-level-change`, higher, email('dave'));
    t.is((await all.sessionOf(device)).methodsJson, '["password"]');
  },
);

test.serial(
  'push - a device that is not compliant is shut out until the same stream lifts it',
  async (t) => {
    const { all } = t.context;
    const device = await all.user('erin');
    const subject = opaque(device.identity.id);
    const compliance = (stream: 'idp' | 'mdm', status: string) =>
      all.tell(stream, `${caep}device-compliance-change`, { current_status: status }, subject);
    const ask = () =>
      device.channel.request({ type: 'grant', app: 'wiki' }).then(
        ({ type }) => type,
        (error: unknown) => toZtnaError(error).code,
      );
    const tunnel = await all.tunnel(device);
    await compliance('mdm', 'not-compliant');
    t.is(await all.ended(device, tunnel), 'device_restricted');
    t.is(await ask(), 'ERR_POSTURE_UNHEALTHY');
    const why = await device.channel
      .request({ type: 'why', app: 'wiki' })
      .catch((error: unknown) => toZtnaError(error));
    t.like(why, {
      code: 'ERR_POSTURE_UNHEALTHY',
      message: 'your device management says that this device is not compliant',
    });
    const unknown = await device.channel
      .request({ type: 'grant', app: 'no-such-app' })
      .catch((error: unknown) => toZtnaError(error));
    t.like(unknown, { code: 'ERR_POLICY_DENIED' }, 'what policy denies stays unknown');
    await compliance('idp', 'compliant');
    t.is(await ask(), 'ERR_POSTURE_UNHEALTHY', 'another stream may not lift it');
    await compliance('idp', 'not-compliant');
    await compliance('mdm', 'compliant');
    t.is(await ask(), 'ERR_POSTURE_UNHEALTHY', 'each stands for itself');
    await compliance('idp', 'compliant');
    t.is(await ask(), 'permit');
  },
);

test.serial('push - compliant lifts nothing that an administrator has imposed', async (t) => {
  const { all } = t.context;
  const device = await all.user('frank');
  await all.rig.admin('device.disable', { id: device.identity.id });
  await all.tell(
    'mdm',
    `${caep}device-compliance-change`,
    { current_status: 'compliant' },
    opaque(device.identity.id),
  );
  t.is((await all.rig.admin('device.show', { id: device.identity.id }))['state'], 'disabled');
});

test.serial('signal.lift - an administrator lifts what streams imposed, on record', async (t) => {
  const { all } = t.context;
  const device = await all.user('gina');
  const { id } = device.identity;
  await all.tell(
    'mdm',
    `${caep}device-compliance-change`,
    { current_status: 'not-compliant' },
    opaque(id),
  );
  t.deepEqual((await all.rig.admin('device.show', { id }))['restrictedBy'], ['mdm']);
  await all.rig.admin('signal.lift', { id });
  t.is((await device.channel.request({ type: 'grant', app: 'wiki' })).type, 'permit');
  const rows = await all.rig.plane.services.audit.read();
  t.like(rows.at(-2), { action: 'signal.lift', actor: 'uid:0', subject: id });
});

test.serial(
  'push - a risk level is a contribution with an end, which the same stream takes back',
  async (t) => {
    const { all } = t.context;
    const device = await all.user('heidi');
    const { store, clock } = all.rig.plane.services;
    const user = (
      await store.db
        .selectFrom('users')
        .select('id')
        .where('name', '=', 'heidi')
        .executeTakeFirstOrThrow()
    ).id;
    const read = () =>
      readRiskMarks(store.db, { user, device: device.identity.id, session: 'none' }, clock.nowMs());
    const level = (
      stream: 'idp' | 'mdm',
      principal: string,
      current_level: string,
      subject: unknown,
    ) => all.tell(stream, `${caep}risk-level-change`, { principal, current_level }, subject);
    await level('idp', 'USER', 'HIGH', email('heidi'));
    await level('mdm', 'DEVICE', 'MEDIUM', opaque(device.identity.id));
    t.deepEqual(
      (await read()).map(({ stream, points }) => [stream, points]),
      [
        ['idp', 80],
        ['mdm', 40],
      ],
    );
    t.true((await read()).every(({ untilMs }) => untilMs > clock.nowMs()));
    await level('mdm', 'USER', 'LOW', email('heidi'));
    t.is((await read()).length, 2, 'LOW takes back one’s own alone');
    await level('idp', 'USER', 'LOW', email('heidi'));
    t.deepEqual(
      (await read()).map(({ stream }) => stream),
      ['mdm'],
    );
  },
);

test.serial(
  'push - a disabled account is disabled here, and is not enabled by any event',
  async (t) => {
    const { all } = t.context;
    const device = await all.user('ivan');
    const tunnel = await all.tunnel(device);
    await all.tell('idp', `${risc}account-disabled`, { reason: 'hijacking' }, email('ivan'));
    t.is(await all.ended(device, tunnel), 'signal_account_disabled');
    t.is((await all.rig.admin('user.show', { name: 'ivan' }))['state'], 'disabled');
    await all.tell('idp', `${risc}account-enabled`, {}, email('ivan'));
    t.is((await all.rig.admin('user.show', { name: 'ivan' }))['state'], 'disabled');
    t.is((await all.records()).at(-1)?.details['effect'], 'none: an_administrator_enables');
  },
);

test.serial(
  'push - unknown subjects and events are acknowledged, on record, and do nothing',
  async (t) => {
    const { all } = t.context;
    await all.tell('idp', `${caep}session-revoked`, {}, email('nobody'));
    t.is((await all.records()).at(-1)?.details['effect'], 'none: subject_unknown');
    await all.tell(
      'idp',
      'https://else.example.com/grant-everything',
      { role: 'admin' },
      email('alice'),
    );
    t.like((await all.records()).at(-1)?.details, {
      effect: 'none: event_unknown',
      event: 'https://else.example.com/grant-everything',
    });
    // Only a device is compliant or not: never all that its user has.
    await all.tell(
      'mdm',
      `${caep}device-compliance-change`,
      { current_status: 'not-compliant' },
      email('bob'),
    );
    t.is((await all.records()).at(-1)?.details['effect'], 'none: subject_is_no_device');
  },
);

test.serial('push - verification shows that the stream is alive', async (t) => {
  const { all } = t.context;
  const find = async () => {
    const rows = await all.rig.admin<Record<string, unknown>[]>('signal.list');
    return rows.find(({ name }) => name === 'idp');
  };
  t.is((await find())?.['verifiedAtMs'], null);
  await all.tell('idp', `${ssf}verification`, { state: 'VGhpcyBpcw' }, opaque('stream-1'));
  await all.tell('idp', `${ssf}stream-updated`, { status: 'paused' }, opaque('stream-1'));
  t.is(typeof (await find())?.['verifiedAtMs'], 'number');
  t.is((await find())?.['status'], 'paused');
});

test.serial(
  'push - a token that comes again is acknowledged and does nothing, also after a restart',
  async (t) => {
    const { all } = t.context;
    await all.user('judy');
    const token = await all.token(`${caep}session-revoked`, {}, email('judy'));
    t.is((await all.push('idp', token)).status, 202);
    const count = (await all.records()).length;
    t.is((await all.push('idp', token)).status, 202);
    await prune(all.rig.plane.services);
    await all.rig.plane.stop();
    await all.rig.startPlane();
    t.is((await all.push('idp', token)).status, 202);
    t.is((await all.records()).length, count);
    // What another token did is not hidden behind the number of this one.
    const now = all.rig.plane.services.clock.nowMs();
    const claims = claimsOf(`${caep}session-revoked`, {}, email('judy'), now);
    t.is((await all.push('idp', await sign(claims))).status, 202);
    const other = await all.push('idp', await sign({ ...claims, txn: 'x' }));
    t.is(other.status, 400);
    t.like(JSON.parse(other.text), { err: 'invalid_request' });
  },
);

test.serial('push - at once twice is once', async (t) => {
  const { all } = t.context;
  const token = await all.token(`${caep}session-revoked`, {}, email('bob'));
  const { jti } = decodeJwt(token);
  const answers = await Promise.all([1, 2, 3, 4].map(() => all.push('idp', token)));
  t.deepEqual(
    answers.map(({ status }) => status),
    [202, 202, 202, 202],
  );
  // What an earlier test was refused may be written down only now.
  const records = (await all.records()).filter(({ details }) => details['jti'] === jti);
  t.is(records.length, 1);
});

test.serial('push - answers what RFC 8935 says to a token that it refuses', async (t) => {
  const { all } = t.context;
  const token = (claims: Record<string, unknown>, header: Record<string, unknown> = {}) =>
    all.token(`${caep}session-revoked`, {}, email('alice'), { claims, header });
  for (const [text, err] of [
    [await token({ iss: 'https://else' }), 'invalid_issuer'],
    [await token({ aud: 'https://else' }), 'invalid_audience'],
    [await token({}, { kid: 'k2' }), 'invalid_key'],
    [await token({ events: {} }), 'invalid_request'],
    [await token({ sub_id: undefined }), 'invalid_request'],
    ['rubbish', 'invalid_request'],
  ] as const) {
    const answer = await all.push('idp', text);
    t.is(answer.status, 400, err);
    t.is(answer.headers['content-type'], 'application/json');
    t.is((JSON.parse(answer.text) as { err: string }).err, err);
  }
  await all.rig.settled();
  t.like((await all.records()).at(-1), { outcome: 'refused' });
});

test.serial('push - refuses other methods, other content and what is too large', async (t) => {
  const { all } = t.context;
  const token = await all.token(`${caep}session-revoked`, {}, email('alice'));
  for (const answer of [
    await all.push('idp', token, { 'content-type': 'application/jwt' }),
    await all.push('idp', token, { 'content-type': undefined }),
    await all.push('idp', token, {}, 'PUT'),
    await all.push('idp', 'x'.repeat(66_000)),
    await all.push('idp', 'x'.repeat(66_000), { 'transfer-encoding': 'chunked' }),
  ]) {
    t.is(answer.status, 400);
    t.is((JSON.parse(answer.text) as { err: string }).err, 'invalid_request');
  }
});

test.serial('push - a wrong secret and a stream that there is not are told alike', async (t) => {
  const { all } = t.context;
  const token = await all.token(`${caep}session-revoked`, {}, email('alice'));
  const answers = [
    await all.push('idp', token, { authorization: 'Bearer wrong' }),
    await all.push('idp', token, { authorization: undefined }),
    await all.push('idp', token, { authorization: pushToken }),
    await all.push('none', token),
    await all.push('', token),
    await all.push('idp/', token),
    await all.push('constructor', token),
    await all.push('none', token, { authorization: 'Bearer of nothing' }),
  ];
  for (const { status, text, headers } of answers) {
    t.is(status, 401);
    t.is(text, answers[0]?.text ?? 'none');
    const { date, ...rest } = headers;
    t.truthy(date);
    t.deepEqual(
      Object.keys(rest),
      Object.keys(answers[0]?.headers ?? {}).filter((key) => key !== 'date'),
    );
  }
});

test.serial('push - a stranger’s body is not waited for', async (t) => {
  const { all } = t.context;
  const answer = await all.push('idp', 'x'.repeat(60_000), {
    authorization: undefined,
    'content-length': '65000',
  });
  t.is(answer.status, 401);
});

test.serial('push - no log line or record holds the secret of a transmitter', async (t) => {
  const { all } = t.context;
  await all.push('idp', 'rubbish');
  await all.push('idp', 'rubbish', { authorization: `Bearer ${pushToken}x` });
  await all.rig.settled();
  const rows = await all.rig.plane.services.audit.read();
  t.false(JSON.stringify(rows).includes(pushToken));
  t.false(all.rig.logLines.join('\n').includes(pushToken));
});

test('PushReceiver - a burst from one address is slowed down, and no other address', async (t) => {
  const services = {
    clock: new TestClock(),
    refusals: { record: () => Promise.resolve() },
  } as unknown as Services;
  const receiver = new PushReceiver(services, {} as SignalEffects, []);
  const statusOf = async (address: string): Promise<number> => {
    let status = 0;
    const response = {
      writeHead: (given: number) => {
        status = given;
      },
      end: () => undefined,
    } as unknown as ServerResponse;
    const request = {
      url: '/v1/signals/idp',
      method: 'POST',
      headers: {},
    } as unknown as IncomingMessage;
    await receiver.answer(address, request, response);
    return status;
  };
  for (let i = 0; i < 120; i++) t.is(await statusOf('2001:db8::1'), 401);
  t.is(await statusOf('2001:db8::1'), 429);
  t.is(await statusOf('2001:db8::ffff'), 429, 'of the same /64');
  t.is(await statusOf('2001:db8:1::1'), 401);
});
