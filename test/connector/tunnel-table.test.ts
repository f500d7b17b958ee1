import test from 'ava';
import { newId, ZtnaError, type ErrorCode, type VerifiedGrant } from '../../protocol/index.ts';
import { TunnelLease } from '../../connector/tunnel-lease.ts';
import { TunnelTable, type OpenTunnel } from '../../connector/tunnel-table.ts';
import { Parties, startMs } from './fixture.ts';

const parties = new Parties();

class FakeTunnel implements OpenTunnel {
  readonly grant: VerifiedGrant<'connector'>;
  readonly lease: TunnelLease;
  readonly streamCount = 2;
  readonly isResumable = true;
  readonly traffic = { bytesUp: 1, bytesDown: 2, lastByteAt: null };
  isDetached = false;
  readonly ends: [ErrorCode, string][] = [];
  readonly suspensions: string[] = [];
  readonly appName: string;

  constructor(nowMs: () => number, appName = 'app', version = 1) {
    this.grant = { ...parties.grant(), version } as unknown as VerifiedGrant<'connector'>;
    this.lease = new TunnelLease(this.grant, nowMs);
    this.appName = appName;
  }

  end(code: ErrorCode, reason: string): void {
    this.ends.push([code, reason]);
  }

  suspend(reason: string): void {
    this.suspensions.push(reason);
  }

  expire(): void {
    this.end('ERR_TUNNEL_LEASE_EXPIRED', 'lease_expired');
  }
}

function tableOf(...tunnels: FakeTunnel[]): TunnelTable {
  const table = new TunnelTable();
  for (const tunnel of tunnels) table.add(tunnel);
  return table;
}

const now = () => startMs;

test('TunnelTable - counts tunnels in all and per device', (t) => {
  const [one, two] = [new FakeTunnel(now), new FakeTunnel(now)];
  const table = tableOf(one, two);
  t.is(table.total, 2);
  t.is(table.streamCount, 4);
  t.is(table.ofDevice(parties.device), 2);
  table.remove(one);
  table.remove(one);
  t.is(table.ofDevice(parties.device), 1);
  t.is(table.find(one.grant.tunnel), undefined);
  t.deepEqual(table.ids(), [two.grant.tunnel]);
});

test('TunnelTable - does not take a tunnel twice', (t) => {
  const one = new FakeTunnel(now);
  const table = tableOf(one);
  t.is(t.throws(() => table.add(one), { instanceOf: ZtnaError }).code, 'ERR_INTERNAL');
});

test('TunnelTable - ends on the tick what is not renewed, and nothing else', (t) => {
  let nowMs = startMs;
  const clock = () => nowMs;
  const [renewed, silent] = [new FakeTunnel(clock), new FakeTunnel(clock)];
  const table = tableOf(renewed, silent);
  nowMs += 20_000;
  const untilMs = nowMs + 60_000;
  const statement = parties.signLeases([
    [renewed.grant.tunnel, [1, 2], untilMs],
    [newId('tunnel'), [1, 2], untilMs],
  ]);
  t.is(table.renew(statement, parties.bundle, parties.connector), 1);
  table.enforceLeases();
  t.deepEqual(silent.ends, []);
  nowMs += 40_000;
  table.enforceLeases();
  t.deepEqual(silent.ends, [['ERR_TUNNEL_LEASE_EXPIRED', 'lease_expired']]);
  t.deepEqual(renewed.ends, []);
});

test('TunnelTable - refuses leases for another connector and by another key', (t) => {
  const one = new FakeTunnel(now);
  const table = tableOf(one);
  const entry: [typeof one.grant.tunnel, [number, number], number] = [
    one.grant.tunnel,
    [2, 0],
    startMs,
  ];
  const other = new Parties();
  for (const statement of [
    parties.signLeases([entry], { connector: newId('connector') }),
    other.signLeases([entry], { connector: parties.connector }),
    parties.signLog(),
  ]) {
    const error = t.throws(() => table.renew(statement, parties.bundle, parties.connector), {
      instanceOf: ZtnaError,
    });
    t.is(error.code, 'ERR_STATEMENT_REFUSED');
  }
  table.enforceLeases();
  t.deepEqual(one.ends, []);
});

for (const kind of ['user', 'session', 'device', 'app', 'connector', 'tunnel'] as const) {
  test(`TunnelTable - ends what a log entry about its ${kind} concerns`, (t) => {
    const one = new FakeTunnel(now);
    const table = tableOf(one);
    const entryOf = (id: string) =>
      ({
        position: 1,
        action: 'revoke',
        subject: { kind, id },
        reason: 'because',
      }) as Parameters<TunnelTable['endAbout']>[0];
    table.endAbout(entryOf(newId(kind)), 1);
    t.deepEqual(one.ends, []);
    table.endAbout(entryOf(one.grant[kind]), 1);
    t.deepEqual(one.ends, [['ERR_TUNNEL_REVOKED', 'because']]);
  });
}

test('TunnelTable - suspends where an entry says so, and ends what is too old to be kept', (t) => {
  const [kept, old] = [new FakeTunnel(now, 'app', 3), new FakeTunnel(now, 'app', 2)];
  const table = tableOf(kept, old);
  const entry = { position: 1, action: 'suspend', reason: 'posture_unhealthy' } as const;
  table.endAbout({ ...entry, subject: { kind: 'device', id: parties.device } }, 1);
  t.deepEqual([kept.suspensions, kept.ends], [['posture_unhealthy'], []]);
  t.deepEqual([old.suspensions, old.ends], [[], [['ERR_TUNNEL_REVOKED', 'posture_unhealthy']]]);
});

test('TunnelTable - ends the tunnels of the apps that are named', (t) => {
  const [wiki, db] = [new FakeTunnel(now, 'wiki'), new FakeTunnel(now, 'db')];
  tableOf(wiki, db).endApps(['wiki']);
  t.deepEqual(wiki.ends, [['ERR_TUNNEL_CLOSED', 'app_removed']]);
  t.deepEqual(db.ends, []);
});
