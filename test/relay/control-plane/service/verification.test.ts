import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  grantSchema,
  newId,
  verifyStatement,
  type DevicePosture,
} from '../../../../protocol/index.ts';
import type { LiveTunnel } from '../../../../relay/control-plane/live/tunnel-index.ts';
import {
  checkPolicies,
  PolicyEngine,
  storePolicy,
} from '../../../../relay/control-plane/policy/index.ts';
import { noFacts } from '../../../../relay/control-plane/store/fact-stamps.ts';
import type { Services } from '../../../../relay/control-plane/services.ts';
import type { Tx } from '../../../../relay/control-plane/store/index.ts';
import { verifyTunnels } from '../../../../relay/control-plane/verification/verifier.ts';
import { Rig, type ConnectorPeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  dir: string;
  berlin: ConnectorPeer;
  relay: RelayPeer;
}
const test = anyTest as TestFn<Context>;

const policies = {
  'wiki.cedar': `
    @id("wiki") permit (principal in Group::"staff", action == Action::"connect", resource)
    when { context.posture.firewall == "on" && resource in Site::"berlin" };
    @id("risky") forbid (principal, action, resource) when { context.risk.score >= 80 };`,
};

test.before('a deployment whose verification this file carries out', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-verification-'));
  const file = join(dir, 'keys.json');
  await writeFile(file, '{"keys":[]}');
  const idp = {
    name: 'idp',
    issuer: 'https://idp.example.com',
    audience: 'https://ztna.example.com',
    keys: { file },
    pushTokenFile: null,
    poll: null,
    subjects: { email: 'user_name', domains: [], mapFile: null },
    maxAgeMs: 60_000,
    riskMs: 60_000,
  } as const;
  const rig = await Rig.start({ signals: { receive: [idp], transmit: [], webhooks: [] } });
  t.context = { rig, dir } as Context;
  rig.version = 3;
  rig.plane.services.schedule.takeDue = () => [];
  await rig.admin('policy.apply', { files: policies });
  await rig.admin('group.add', { name: 'mentors' });
  t.context.berlin = await rig.connector('berlin', ['wiki']);
  t.context.relay = await rig.relay(t.context.berlin);
});

test.after.always('stop', async (t) => {
  await (t.context.rig as Rig | undefined)?.stop();
  if (t.context.dir) await rm(t.context.dir, { recursive: true, force: true });
});

const healthy: DevicePosture = {
  platform: 'linux',
  osVersion: '24.04',
  clientVersion: '1.0.0',
  checks: [['firewall', 'on', 'nft']],
};

let users = 0;

/** An open tunnel of somebody new, whose device is heard of, here or by another control plane. */
async function openTunnel({ rig, berlin }: Context, isHeardHere: boolean): Promise<LiveTunnel> {
  const { services } = rig.plane;
  const device = await rig.device(`user-${String(users++)}`);
  const id = device.identity.id as never;
  const atMs = services.clock.nowMs();
  if (isHeardHere) {
    services.postures.note(id, { facts: healthy, atMs });
    await services.postures.keep(); // that it is written down is a change, too
  } else {
    const row = { deviceId: id, factsJson: JSON.stringify(healthy), atMs };
    await services.store.write((tx) => tx.insertInto('postures').values(row).execute());
  }
  await rig.untilRouted('wiki', device);
  const permit = await device.channel.request({
    type: 'path',
    app: 'wiki',
    tunnel: null,
    avoid: [],
  });
  if (permit.type !== 'path_permit') throw new Error('no permit');
  const keys = device.identity.bundle.grantKeys;
  const grant = verifyStatement('grant', grantSchema, permit.grant, keys);
  berlin.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  for (;;) {
    const tunnel = services.tunnels.get(grant.tunnel);
    if (tunnel?.state === 'open') return tunnel;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Verifies a tunnel; answers how often policy was asked. */
async function verify(services: Services, tunnel: LiveTunnel): Promise<number> {
  const { policy } = services;
  let asked = 0;
  const decide = policy.decide.bind(policy);
  policy.decide = (request) => {
    asked += 1;
    return decide(request);
  };
  try {
    await verifyTunnels(services, [tunnel.id]);
  } finally {
    Reflect.deleteProperty(policy, 'decide');
  }
  return asked;
}

interface Change {
  /** Made behind everybody's back: by a writer that appends to no log, announces nothing and tells no index. */
  readonly make: (tx: Tx, tunnel: LiveTunnel, services: Services) => Promise<unknown>;
  /** `recorded`: a decision of its own was written down. */
  readonly becomes: 'closed' | 'suspended' | 'recorded' | 'shortened';
  /** The device has its channel with another control plane. */
  readonly isHeardElsewhere?: boolean;
}

const inAMinuteMs = 30_000;

const changes: Readonly<Record<string, Readonly<Record<string, Change>>>> = {
  users: {
    'is disabled': {
      make: (tx, { user }) =>
        tx.updateTable('users').set({ disabled: 1 }).where('id', '=', user).execute(),
      becomes: 'closed',
    },
    'is given an end': {
      make: (tx, { user }, { clock }) =>
        tx
          .updateTable('users')
          .set({ expiresAtMs: clock.nowMs() + inAMinuteMs })
          .where('id', '=', user)
          .execute(),
      becomes: 'shortened',
    },
  },
  sessions: {
    'is ended': {
      make: (tx, { session }) =>
        tx
          .updateTable('sessions')
          .set({ endedAtMs: 1, endReason: 'session_revoked' })
          .where('id', '=', session)
          .execute(),
      becomes: 'closed',
    },
    'is gone': {
      make: (tx, { session }) => tx.deleteFrom('sessions').where('id', '=', session).execute(),
      becomes: 'closed',
    },
    'is of another strength': {
      make: (tx, { session }) =>
        tx
          .updateTable('sessions')
          .set({ methodsJson: '["password","totp"]' })
          .where('id', '=', session)
          .execute(),
      becomes: 'recorded',
    },
  },
  devices: {
    'is disabled': {
      make: (tx, { device }) =>
        tx.updateTable('devices').set({ state: 'disabled' }).where('id', '=', device).execute(),
      becomes: 'closed',
    },
    'is not compliant': {
      make: (tx, { device }) =>
        tx
          .updateTable('devices')
          .set({ restrictedJson: '["mdm"]' })
          .where('id', '=', device)
          .execute(),
      becomes: 'suspended',
    },
  },
  memberships: {
    'is taken away': {
      make: (tx, { user }) => tx.deleteFrom('memberships').where('userId', '=', user).execute(),
      becomes: 'closed',
    },
    'has ended': {
      make: (tx, { user }) =>
        tx.updateTable('memberships').set({ untilMs: 1 }).where('userId', '=', user).execute(),
      becomes: 'closed',
    },
    'is given an end': {
      make: (tx, { user }, { clock }) =>
        tx
          .updateTable('memberships')
          .set({ untilMs: clock.nowMs() + inAMinuteMs })
          .where('userId', '=', user)
          .execute(),
      becomes: 'shortened',
    },
  },
  provided_memberships: {
    'is added': {
      make: async (tx, { user: userId }) => {
        const { id: groupId } = await tx
          .selectFrom('groups')
          .select('id')
          .where('name', '=', 'mentors')
          .executeTakeFirstOrThrow();
        const row = { userId, groupId, source: 'scim', createdAtMs: 1 };
        return tx.insertInto('providedMemberships').values(row).execute();
      },
      becomes: 'recorded',
    },
  },
  groups: {
    'is called otherwise': {
      make: (tx) =>
        tx
          .updateTable('groups')
          .set({ name: 'former staff' })
          .where('name', '=', 'staff')
          .execute(),
      becomes: 'closed',
    },
  },
  apps: {
    'has another label': {
      make: (tx, { app }) =>
        tx.updateTable('apps').set({ labelsJson: '{"class":"x"}' }).where('id', '=', app).execute(),
      becomes: 'recorded',
    },
    'lies at another site': {
      make: async (tx, { app }) => {
        const site = { id: newId('site'), name: 'rome', createdAtMs: 1 };
        await tx.insertInto('sites').values(site).execute();
        await tx.updateTable('apps').set({ siteId: site.id }).where('id', '=', app).execute();
      },
      becomes: 'closed',
    },
  },
  sites: {
    'is called otherwise': {
      make: (tx) =>
        tx.updateTable('sites').set({ name: 'paris' }).where('name', '=', 'berlin').execute(),
      becomes: 'closed',
    },
  },
  postures: {
    'is another one, as another control plane heard': {
      make: (tx, { device }, { clock }) => {
        const facts = { ...healthy, checks: [['firewall', 'off', 'nft']] };
        const row = { factsJson: JSON.stringify(facts), atMs: clock.nowMs() };
        return tx.updateTable('postures').set(row).where('deviceId', '=', device).execute();
      },
      becomes: 'suspended',
      isHeardElsewhere: true,
    },
  },
  signal_marks: {
    'tells of a risk': {
      make: (tx, { user }, { clock }) =>
        tx
          .insertInto('signalMarks')
          .values({
            stream: 'idp',
            kind: 'risk',
            subjectKind: 'user',
            subjectId: user,
            points: 80,
            active: 1,
            happenedAtMs: 1,
            untilMs: clock.nowMs() + 60_000,
          })
          .execute(),
      becomes: 'suspended',
    },
  },
  policies: {
    'is another one': {
      make: async (tx, _tunnel, services) => {
        const engine = new PolicyEngine();
        const files = { 'none.cedar': '@id("none") forbid (principal, action, resource);' };
        const stored = await storePolicy(tx, { files, actor: 'test', nowMs: 1 });
        engine.activate(await checkPolicies(files), stored.version);
        services.store.afterCommit(tx, () => {
          services.policy = engine; // as whoever follows others does
        });
      },
      becomes: 'closed',
    },
  },
};

test.serial('verification - every kind of fact is changed by a test of this file', async (t) => {
  const { store } = t.context.rig.plane.services;
  const tables = await store.db.withoutPlugins().introspection.getTables();
  const watched = tables
    .filter(({ name, schema = 'ztna' }) => schema === 'ztna' && !Object.hasOwn(noFacts, name))
    .map(({ name }) => name);
  t.deepEqual(Object.keys(changes).sort(), watched.sort());
});

/** Makes a change, verifies once, and undoes what others would notice. */
async function seeChange(t: ExecutionContext<Context>, change: Change): Promise<void> {
  const { services } = t.context.rig.plane;
  const tunnel = await openTunnel(t.context, change.isHeardElsewhere !== true);
  await verify(services, tunnel);
  t.is(await verify(services, tunnel), 0, 'nothing changed');
  t.is(tunnel.state, 'open');
  const { decision, untilMs } = tunnel;
  const confirmations = tunnel.confirmations;
  t.true(confirmations > 0);
  await services.store.write((tx) => change.make(tx, tunnel, services));
  await verify(services, tunnel);
  switch (change.becomes) {
    case 'closed':
      t.is(tunnel.state, 'closed');
      break;
    case 'suspended':
      t.is(tunnel.state, 'detached');
      t.truthy(tunnel.suspension);
      break;
    case 'recorded':
      t.is(tunnel.state, 'open');
      t.not(tunnel.decision, decision);
      t.is(tunnel.confirmations, 0);
      break;
    case 'shortened':
      t.is(tunnel.state, 'open');
      t.true(tunnel.untilMs < untilMs);
      t.true(tunnel.untilMs <= services.clock.nowMs() + inAMinuteMs);
      break;
    default:
      change.becomes satisfies never;
  }
}

async function restore({ rig }: Context): Promise<void> {
  const { store } = rig.plane.services;
  await store.write(async (tx) => {
    await tx
      .updateTable('groups')
      .set({ name: 'staff' })
      .where('name', '=', 'former staff')
      .execute();
    await tx.updateTable('sites').set({ name: 'berlin' }).where('name', '=', 'paris').execute();
    const berlin = await tx
      .selectFrom('sites')
      .select('id')
      .where('name', '=', 'berlin')
      .executeTakeFirstOrThrow();
    await tx.updateTable('apps').set({ siteId: berlin.id, labelsJson: '{}' }).execute();
    await tx.deleteFrom('sites').where('name', '=', 'rome').execute();
  });
  await rig.admin('policy.apply', { files: policies });
}

for (const [table, ofTable] of Object.entries(changes)) {
  for (const [what, change] of Object.entries(ofTable)) {
    test.serial(`verification - the next tick sees that a row of ${table} ${what}`, async (t) => {
      try {
        await seeChange(t, change);
      } finally {
        await restore(t.context);
      }
    });
  }
}
