import test from 'ava';
import {
  newId,
  ZtnaError,
  type ErrorCode,
  type Grant,
  type RevocationEntry,
} from '../../protocol/index.ts';
import { servedApps } from '../../connector/app-map.ts';
import {
  admitClient,
  type Gate,
  type GateFeed,
  type KnownTunnel,
  type TunnelCounts,
} from '../../connector/grant-gate.ts';
import { maxTunnels, maxTunnelsPerDevice } from '../../connector/limits.ts';
import { parseTarget } from '../../connector/target.ts';
import { UsedGrants } from '../../connector/used-grants.ts';
import { newSigningKey } from '../support/authority.ts';
import { Parties, startMs } from './fixture.ts';

const parties = new Parties();
const noTunnels: TunnelCounts = { total: 0, ofDevice: () => 0, find: () => undefined };
const anotherTunnel = {} as KnownTunnel;
const quietFeed: GateFeed = {
  waitFor: () => Promise.resolve(true),
  isRevokedAfter: () => undefined,
};

function gate(change: Partial<Gate> = {}): Gate & { usedGrants: UsedGrants } {
  const usedGrants = new UsedGrants();
  const apps = servedApps(
    new Map([['db', { target: parseTarget('tcp://127.0.0.1:5432'), check: null }]]),
    [['db', parties.app]],
  );
  return {
    bundle: () => parties.bundle,
    connector: parties.connector,
    instance: parties.instance,
    nowMs: () => startMs,
    feed: quietFeed,
    apps: () => apps,
    usedGrants,
    openTunnels: () => noTunnels,
    ...change,
  };
}

/** What the gate answers to a client that holds a grant with those changes. */
async function present(change: Partial<Grant>, at: Gate) {
  const grant = parties.grant(change);
  const { client } = parties.provedClient(parties.signGrant(grant));
  return admitClient(client, grant.tunnel, at);
}

test('admitClient - admits a good grant with its app, its lease and its use recorded', async (t) => {
  const at = gate();
  const admission = await present({}, at);
  t.is(admission.app.name, 'db');
  t.is(admission.lease.untilMs, startMs + 60_000);
  t.is(at.usedGrants.size, 2);
});

const entry: RevocationEntry = {
  position: 7,
  action: 'revoke',
  subject: { kind: 'device', id: parties.device },
  reason: 'device_lost',
};

const refusals: readonly (readonly [string, Partial<Grant>, Partial<Gate>, ErrorCode])[] = [
  ['while control time is unknown', {}, { nowMs: () => undefined }, 'ERR_RELAY_UNAVAILABLE'],
  ['when it has expired', {}, { nowMs: () => startMs + 60_000 }, 'ERR_GRANT_EXPIRED'],
  ['when it comes from the future', {}, { nowMs: () => startMs - 60_000 }, 'ERR_GRANT_REFUSED'],
  ['for another connector', {}, { connector: newId('connector') }, 'ERR_GRANT_MISMATCH'],
  ['for another instance', {}, { instance: newId('instance') }, 'ERR_GRANT_MISMATCH'],
  ['for a later path', { generation: 2 }, {}, 'ERR_GRANT_MISMATCH'],
  [
    'ahead of the log',
    {},
    { feed: { ...quietFeed, waitFor: () => Promise.resolve(false) } },
    'ERR_RELAY_UNAVAILABLE',
  ],
  [
    'that was revoked since',
    {},
    { feed: { ...quietFeed, isRevokedAfter: () => entry } },
    'ERR_GRANT_REVOKED',
  ],
  ['for an app that is not in the map', {}, { apps: () => new Map() }, 'ERR_GRANT_MISMATCH'],
  ['for an app of another id', { app: newId('app') }, {}, 'ERR_GRANT_MISMATCH'],
  [
    'of a tunnel that is open',
    {},
    { openTunnels: () => ({ ...noTunnels, find: () => anotherTunnel }) },
    'ERR_GRANT_USED',
  ],
  [
    'when all tunnels are taken',
    {},
    { openTunnels: () => ({ ...noTunnels, total: maxTunnels }) },
    'ERR_LIMIT_TUNNELS',
  ],
  [
    'when the device has its share',
    {},
    { openTunnels: () => ({ ...noTunnels, ofDevice: () => maxTunnelsPerDevice }) },
    'ERR_LIMIT_TUNNELS',
  ],
  ['whose lease has ended', { untilMs: startMs }, {}, 'ERR_TUNNEL_LEASE_EXPIRED'],
  [
    'when no more uses can be remembered',
    {},
    { usedGrants: new UsedGrants(0) },
    'ERR_LIMIT_TUNNELS',
  ],
];
for (const [title, change, at, code] of refusals) {
  test(`admitClient - refuses a grant ${title}`, async (t) => {
    const whole = gate(at);
    // A roster vouches for one app, so the device would not present another: sign the handshake's grant as it is.
    const grant = parties.grant({ ...change, app: parties.app });
    const shown = change.app ? { ...grant, app: change.app } : grant;
    const { client } = parties.provedClient(parties.signGrant(grant));
    const presented = { peerStatic: client.peerStatic, grantStatement: parties.signGrant(shown) };
    const error = await t.throwsAsync(admitClient(presented, grant.tunnel, whole), {
      instanceOf: ZtnaError,
    });
    t.is(error.code, code);
    t.is(whole.usedGrants.size, 0);
  });
}

test('admitClient - refuses a grant of another device', async (t) => {
  const other = new Parties();
  const grant = parties.grant();
  const { client } = other.provedClient(other.signGrant(other.grant()));
  const presented = { peerStatic: client.peerStatic, grantStatement: parties.signGrant(grant) };
  const error = await t.throwsAsync(admitClient(presented, grant.tunnel, gate()), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_GRANT_MISMATCH');
});

test('admitClient - refuses a grant by a key that is no grant key', async (t) => {
  const grant = parties.grant();
  const { client } = parties.provedClient(parties.signGrant(grant));
  for (const key of [newSigningKey(), parties.rosterKey, parties.root]) {
    const presented = {
      peerStatic: client.peerStatic,
      grantStatement: parties.signGrant(grant, key),
    };
    const error = await t.throwsAsync(admitClient(presented, grant.tunnel, gate()), {
      instanceOf: ZtnaError,
    });
    t.is(error.code, 'ERR_STATEMENT_REFUSED');
  }
});

test('admitClient - refuses a grant for another tunnel than was assigned', async (t) => {
  const { client } = parties.provedClient(parties.signGrant(parties.grant()));
  const error = await t.throwsAsync(admitClient(client, newId('tunnel'), gate()), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_GRANT_MISMATCH');
});

test('admitClient - admits one of many clients that present the same grant at once', async (t) => {
  const at = gate();
  const grant = parties.grant();
  const statement = parties.signGrant(grant);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, () =>
      admitClient(parties.provedClient(statement).client, grant.tunnel, at),
    ),
  );
  t.is(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') t.is((outcome.reason as ZtnaError).code, 'ERR_GRANT_USED');
  }
});

test('admitClient - refuses another grant for a path that was used', async (t) => {
  const at = gate();
  const tunnel = newId('tunnel');
  await present({ tunnel }, at);
  const error = await t.throwsAsync(present({ tunnel }, at), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_GRANT_USED');
});

test('admitClient - refuses a grant that expires while the log is awaited', async (t) => {
  let nowMs = startMs;
  const feed: GateFeed = {
    ...quietFeed,
    waitFor: () => {
      nowMs = startMs + 60_000;
      return Promise.resolve(true);
    },
  };
  const error = await t.throwsAsync(present({}, gate({ nowMs: () => nowMs, feed })), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_GRANT_EXPIRED');
});

test('admitClient - sees a revocation that arrives while the log is awaited', async (t) => {
  let revoked: RevocationEntry | undefined;
  const feed: GateFeed = {
    waitFor: () => {
      revoked = entry;
      return Promise.resolve(true);
    },
    isRevokedAfter: () => revoked,
  };
  const error = await t.throwsAsync(present({}, gate({ feed })), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_GRANT_REVOKED');
  t.is(error.reason, 'device_lost');
});

test('admitClient - asks the log about the grant as it was decided', async (t) => {
  const asked: unknown[] = [];
  const feed: GateFeed = {
    waitFor: (position, incarnation) => {
      asked.push(['wait', position, incarnation]);
      return Promise.resolve(true);
    },
    isRevokedAfter: (subjects, incarnation, position) => {
      asked.push(['revoked', subjects.tunnel, incarnation, position]);
      return undefined;
    },
  };
  const tunnel = newId('tunnel');
  await present({ tunnel, incarnation: 3, position: 41 }, gate({ feed }));
  t.deepEqual(asked, [
    ['wait', 41, 3],
    ['revoked', tunnel, 3, 41],
  ]);
});
