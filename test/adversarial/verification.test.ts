import anyTest, { type TestFn } from 'ava';
import { sql } from 'kysely';
import * as v from 'valibot';
import {
  grantSchema,
  signingKey,
  signStatement,
  toZtnaError,
  verifyStatement,
  type Grant,
} from '../../protocol/index.ts';
import {
  password,
  Rig,
  type ConnectorPeer,
  type DevicePeer,
} from '../relay/control-plane/service/rig.ts';

interface Context {
  rig: Rig;
  connector: ConnectorPeer;
}
const test = anyTest as TestFn<Context>;

const permit = (id: string, group: string, app: string, when = 'true') =>
  `@id("${id}") permit (principal in Group::"${group}", action == Action::"connect", resource == App::"${app}") when { ${when} };`;

const temps = { 'temps.cedar': permit('temps', 'temps', 'wiki') };
const policies = {
  'wiki.cedar': permit('wiki', 'staff', 'wiki'),
  'mail.cedar': permit('mail', 'staff', 'mail', 'context.posture.disk_encryption == "on"'),
};

test.before('a deployment that verifies every second', async (t) => {
  const rig = await Rig.start({ verification: { intervalMs: 1_000, holdMs: 60_000 } });
  rig.version = 3;
  await rig.admin('policy.apply', { files: { ...policies, ...temps } });
  const connector = await rig.connector('berlin', ['wiki', 'mail']);
  await rig.relay(connector);
  t.context = { rig, connector };
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

async function askPath(
  device: DevicePeer,
  app: string,
  tunnel: Grant['tunnel'] | null = null,
): Promise<Grant> {
  const answer = await device.channel.request({ type: 'path', app, tunnel, avoid: [] });
  if (answer.type !== 'path_permit') throw new Error('no permit');
  return verifyStatement('grant', grantSchema, answer.grant, device.identity.bundle.grantKeys);
}

const refusalOf = async (asked: Promise<unknown>): Promise<string> =>
  asked.then(
    () => 'granted',
    (error: unknown) => toZtnaError(error).code,
  );

interface Live {
  readonly rig: Rig;
  readonly device: DevicePeer;
  readonly connector: ConnectorPeer;
  readonly user: string;
  readonly grant: Grant;
}

/** A user's own device with an open tunnel. */
async function openLive(
  { rig, connector }: Context,
  user: string,
  { app = 'wiki', group = 'staff' } = {},
): Promise<Live> {
  const device = await rig.device(user, [group]);
  await rig.untilRouted('wiki', device);
  if (app === 'mail') await say(rig, device, 'on');
  const grant = await askPath(device, app);
  connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  await untilState(rig, grant.tunnel, 'open');
  return { rig, device, connector, user, grant };
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 10));

async function untilState(rig: Rig, tunnel: string, state: string): Promise<void> {
  while ((await rig.admin('tunnel.show', { id: tunnel }))['state'] !== state) await pause();
}

interface Row {
  readonly action: string;
  readonly subject: string;
  readonly outcome: string;
  readonly ref: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

async function auditOf(rig: Rig): Promise<Row[]> {
  await rig.settled();
  return (await rig.plane.services.audit.read({ limit: 10_000 })).map(
    ({ detailsJson, ...row }) => ({
      ...row,
      details: JSON.parse(detailsJson) as Row['details'],
    }),
  );
}

const wantedOf = (device: DevicePeer) =>
  device.find((message) => (message.type === 'posture_wanted' ? message : undefined));

let sequence = 0;

/** Sends what the device signs as its posture, whatever it is. */
async function send(device: DevicePeer, payload: unknown): Promise<void> {
  const key = signingKey(device.identity.signingKey);
  const statement = signStatement('posture', v.any(), payload, key);
  device.channel.send({ type: 'posture', statement });
  await Promise.resolve();
}

async function statementOf(rig: Rig, device: DevicePeer, disk: string) {
  const { nonce } = await wantedOf(device);
  return {
    device: device.identity.id,
    nonce,
    sequence: sequence++,
    atMs: rig.plane.services.clock.nowMs(),
    facts: {
      platform: 'linux',
      osVersion: '12.4',
      clientVersion: '0.1.0',
      checks: [['disk_encryption', disk, 'lsblk']],
    },
  };
}

async function say(rig: Rig, device: DevicePeer, disk: string): Promise<void> {
  await send(device, await statementOf(rig, device, disk));
}

const untilSuspended = (device: DevicePeer) =>
  device.find((message) => (message.type === 'tunnel_suspended' ? message : undefined));

/** What ends or holds back a live tunnel (E2), and the word that the audit log has for it. */
const triggers: readonly [
  name: string,
  reason: string,
  act: (live: Live) => Promise<unknown>,
  where?: { readonly app?: string; readonly group?: string },
][] = [
  [
    'device lost',
    'laptop_lost',
    ({ rig, device }) =>
      rig.admin('revoke', { kind: 'device', id: device.identity.id, reason: 'laptop_lost' }),
  ],
  [
    'device disabled',
    'device_disabled',
    ({ rig, device }) => rig.admin('device.disable', { id: device.identity.id }),
  ],
  ['user disabled', 'user_disabled', ({ rig, user }) => rig.admin('user.disable', { name: user })],
  [
    'group removed',
    'group_member_removed',
    ({ rig, user }) => rig.admin('group.member.remove', { group: 'staff', user }),
  ],
  [
    'policy edited',
    'policy_changed',
    ({ rig }) => rig.admin('policy.apply', { files: policies }),
    { group: 'temps' },
  ],
  [
    'posture failed',
    'posture_unhealthy',
    ({ rig, device }) => say(rig, device, 'off'),
    { app: 'mail' },
  ],
  [
    'administrator ends the tunnel',
    'incident_7',
    ({ rig, grant }) =>
      rig.admin('revoke', { kind: 'tunnel', id: grant.tunnel, reason: 'incident_7' }),
  ],
  ['signed out', 'signed_out', ({ device }) => device.channel.request({ type: 'sign_out' })],
  [
    'connector removed',
    'connector_removed',
    ({ rig, connector }) => rig.admin('connector.remove', { id: connector.identity.id }),
  ],
];

test.serial(
  'E9 posture - what lacks fields, is null or of another form counts for nothing',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('nora');
    await rig.untilRouted('wiki', device);
    await say(rig, device, 'off');
    const whole = await statementOf(rig, device, 'on');
    const { facts } = whole;
    const broken: readonly [what: string, payload: unknown][] = [
      ...Object.keys(whole).map((key): [string, unknown] => [
        `without ${key}`,
        Object.fromEntries(Object.entries(whole).filter(([name]) => name !== key)),
      ]),
      ...Object.keys(whole).map((key): [string, unknown] => [
        `${key} null`,
        { ...whole, [key]: null },
      ]),
      ...Object.keys(facts).map((key): [string, unknown] => [
        `facts.${key} null`,
        { ...whole, facts: { ...facts, [key]: null } },
      ]),
      ['above 16 KiB', { ...whole, facts: { ...facts, osVersion: '1'.repeat(20_000) } }],
      ['facts empty', { ...whole, facts: {} }],
      ['null', null],
      ['a list', [whole]],
      ['more than it may hold', { ...whole, isHealthy: true }],
      [
        'a check that is yes',
        { ...whole, facts: { ...facts, checks: [['disk_encryption', 'yes', '']] } },
      ],
      [
        'a check that is true',
        { ...whole, facts: { ...facts, checks: [['disk_encryption', true, '']] } },
      ],
      ['65 checks', { ...whole, facts: { ...facts, checks: Array(65).fill(facts.checks[0]) } }],
      ['an hour ahead', { ...whole, atMs: whole.atMs + 3_600_000 }],
      ['beyond all time', { ...whole, atMs: Number.MAX_SAFE_INTEGER }],
      ['before all time', { ...whole, atMs: -1 }],
      ['at no time', { ...whole, atMs: 1e400 }],
    ];
    for (const [, payload] of broken) await send(device, payload);
    t.is(await refusalOf(askPath(device, 'mail')), 'ERR_POSTURE_UNHEALTHY');
    const refused = (await auditOf(rig)).filter(
      ({ action, subject }) => action === 'posture.refuse' && subject === device.identity.id,
    );
    t.true(refused.length > 0); // so many of one address, and how many more there were
    await say(rig, device, 'on');
    await t.notThrowsAsync(askPath(device, 'mail'));
  },
);

test.serial(
  'E9 posture - what changes with every statement is decided on now and then, and the last counts',
  async (t) => {
    const live = await openLive(t.context, 'petra', { app: 'mail' });
    const { rig, device, grant } = live;
    const changes = 150;
    const statements = await Promise.all(
      Array.from({ length: changes }, (_, number) =>
        statementOf(rig, device, number % 2 === 0 ? 'off' : 'on'),
      ),
    );
    for (const statement of statements) await send(device, statement);
    await say(rig, device, 'off');
    await untilSuspended(device);
    await untilState(rig, grant.tunnel, 'detached');
    const decided = await rig.plane.services.store.db
      .selectFrom('decisions')
      .select('id')
      .where('tunnelId', '=', grant.tunnel)
      .execute();
    t.true(decided.length < changes / 2, `${String(decided.length)} decisions`);
    t.is(await refusalOf(askPath(device, 'mail')), 'ERR_POSTURE_UNHEALTHY');
  },
);

test.serial(
  'E9 posture - a thousand statements at once end the channel, and nothing is believed for it',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('quinn');
    for (let count = 0; count < 1_000; count++) {
      await send(device, { ...(await statementOf(rig, device, 'unknown')), sequence: count });
    }
    t.is((await device.channel.closed).code, 'ERR_LIMIT_RATE');
    const again = await rig.connectDevice(device.identity);
    await rig.untilRouted('wiki', again);
    t.is(await refusalOf(askPath(again, 'mail')), 'ERR_POSTURE_UNHEALTHY');
  },
);

test.serial(
  'E13 disabled and enabled again at once - the old tunnel ends all the same, a new one is had',
  async (t) => {
    const live = await openLive(t.context, 'rosa');
    const { rig, device, connector, user, grant } = live;
    await Promise.all([
      rig.admin('user.disable', { name: user }),
      rig.admin('user.enable', { name: user }),
    ]);
    const { position } = await rig.plane.services.revocations.head(rig.plane.services.store.db);
    await connector.completeTo(position);
    t.true(
      connector.entries().some(({ action, subject, reason }) => {
        const isOwn = subject.id === grant.user || subject.id === grant.tunnel;
        return isOwn && action === 'revoke' && reason === 'user_disabled';
      }),
    );
    t.like(await rig.admin('tunnel.show', { id: grant.tunnel }), { state: 'closed' });
    t.is(await refusalOf(askPath(device, 'wiki', grant.tunnel)), 'ERR_TUNNEL_REVOKED');
    await device.channel.request({ type: 'sign_in', user, password, otp: null });
    const next = await askPath(device, 'wiki');
    t.true(next.position >= position); // so that the entry does not void it
    t.not(next.tunnel, grant.tunnel);
  },
);

test.serial(
  'I3 disk full - nothing is granted without a record, and all goes on with room',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('sara');
    await rig.untilRouted('wiki', device);
    const { db } = rig.plane.services.store;
    const before = (await auditOf(rig)).length;
    // A full disk as SQLite knows it: no page may be added to the file.
    await sql`pragma max_page_count = 1`.execute(db);
    const refused = new Set<string>();
    for (let count = 0; count < 20; count++) refused.add(await refusalOf(askPath(device, 'wiki')));
    await sql`pragma max_page_count = 1073741823`.execute(db);
    const audited = (await auditOf(rig))
      .slice(before)
      .filter(({ action }) => action === 'decision.made');
    const granted = await db
      .selectFrom('tunnels')
      .select('id')
      .where('deviceId', '=', device.identity.id as never)
      .execute();
    t.log([...refused].join(' '));
    t.is(audited.length, granted.length);
    t.true([...refused].some((code) => code !== 'granted'));
    await t.notThrowsAsync(askPath(device, 'wiki'));
    t.like(await rig.admin('audit.verify'), { isIntact: true });
  },
);

test.serial(
  'I5 audit - every allow, deny, opening and end has its one record, as those who asked count them',
  async (t) => {
    const { rig, connector } = t.context;
    const before = (await auditOf(rig)).length;
    const devices = [await rig.device('tom'), await rig.device('uma', ['strangers'])];
    for (const device of devices) await rig.untilRouted('wiki', devices[0] ?? device);
    const ledger = { allowed: 0, denied: 0, opened: 0, closed: 0 };
    const asked = devices.flatMap((device) =>
      ['wiki', 'mail', 'wiki', 'no-such-app', 'wiki'].map(async (app) => {
        try {
          const grant = await askPath(device, app);
          ledger.allowed += 1;
          connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
          await untilState(rig, grant.tunnel, 'open');
          ledger.opened += 1;
          const closed = { type: 'tunnel_closed', tunnel: grant.tunnel, reason: 'done' } as const;
          device.channel.send(closed);
          device.channel.send(closed); // and whoever says it twice
          await untilState(rig, grant.tunnel, 'closed');
          ledger.closed += 1;
        } catch {
          ledger.denied += 1;
        }
      }),
    );
    await Promise.all(asked);
    const rows = (await auditOf(rig)).slice(before);
    const count = (action: string, outcome = 'ok') =>
      rows.filter((row) => row.action === action && row.outcome === outcome).length;
    t.deepEqual(ledger, { allowed: 3, denied: 7, opened: 3, closed: 3 });
    t.deepEqual(
      {
        allowed: count('decision.made'),
        denied: count('decision.made', 'refused'),
        opened: count('tunnel.open'),
        closed: count('tunnel.end'),
      },
      ledger,
    );
    const refs = rows.filter(({ action }) => action === 'decision.made').map(({ ref }) => ref);
    t.is(new Set(refs).size, 10);
  },
);

test('E15 session - its cap and the age of a sign-in pass in the midst of a tunnel, which waits for another', async (t) => {
  const absoluteMs = 4_000;
  const rig = await Rig.start({
    session: { idleMs: 3_600_000, absoluteMs },
    verification: { intervalMs: 1_000, holdMs: 60_000 },
  });
  t.teardown(() => rig.stop());
  rig.version = 3;
  const fresh = 'context.authentication.age_seconds < 2';
  await rig.admin('policy.apply', {
    files: {
      'wiki.cedar': permit('wiki', 'staff', 'wiki'),
      'mail.cedar': permit('mail', 'staff', 'mail', fresh),
    },
  });
  const connector = await rig.connector('berlin', ['wiki', 'mail']);
  await rig.relay(connector);
  const aged = openLive({ rig, connector }, 'vera', { app: 'mail' });
  const capped = openLive({ rig, connector }, 'wanda');
  for (const [live, capMs] of [
    [await aged, 2_000],
    [await capped, absoluteMs],
  ] as const) {
    const { device, grant, user } = live;
    t.like(await untilSuspended(device), { tunnel: grant.tunnel, reason: 'sign_in_needed' });
    const nowMs = rig.plane.services.clock.nowMs();
    const row = await rig.plane.services.store.db
      .selectFrom('sessions')
      .select(['authenticatedAtMs', 'absoluteEndAtMs'])
      .where('id', '=', grant.session)
      .executeTakeFirstOrThrow();
    t.true(nowMs >= row.authenticatedAtMs + capMs);
    t.true(grant.untilMs <= row.absoluteEndAtMs);
    await device.channel.request({ type: 'sign_in', user, password, otp: null });
    await device.find((message) => (message.type === 'tunnel_ready' ? message : undefined));
  }
});

for (const [name, reason, act, where] of triggers) {
  test.serial(`E2 ${name} - a live tunnel is cut, on record once as ${reason}`, async (t) => {
    const live = await openLive(t.context, name.replaceAll(' ', '-'), where);
    await act(live);
    const { tunnel } = live.grant;
    await untilState(live.rig, tunnel, reason === 'posture_unhealthy' ? 'detached' : 'closed');
    const told = (await auditOf(live.rig)).filter(
      ({ action, subject }) =>
        subject === tunnel && ['tunnel.end', 'tunnel.suspend'].includes(action),
    );
    t.deepEqual(
      told.map(({ details }) => details['reason']),
      [reason],
    );
  });
}
