import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import {
  leaseBatchSchema,
  logBatchSchema,
  newId,
  signStatement,
  timeSchema,
  type Grant,
  type LeaseBatch,
  type LogBatch,
  type SigningKey,
  type ToRelay,
} from '../../protocol/index.ts';
import { newSigningKey } from '../support/authority.ts';
import { RelayRig, type DataEnd } from '../support/relay-rig.ts';

interface Live {
  readonly rig: RelayRig;
  readonly client: DataEnd;
  readonly connector: DataEnd;
  readonly grant: Grant;
}

async function openLive(t: ExecutionContext, changes: Partial<Grant> = {}): Promise<Live> {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  return { rig, ...(await rig.tunnel(changes)) };
}

/** Bytes still pass both ways. */
async function assertAlive(t: ExecutionContext, { client, connector }: Live): Promise<void> {
  for (const [from, to] of [
    [client, connector],
    [connector, client],
  ] as const) {
    const message = randomBytes(32);
    from.send(message);
    const arrived = to.until(() => to.binary.some((seen) => seen.equals(message)));
    t.is(await Promise.race([arrived, to.closed]), undefined, 'the tunnel was closed');
  }
}

function log({ rig, grant }: Live, changes: Partial<LogBatch>, key?: SigningKey): ToRelay {
  const { relay, grantKey } = rig.authority;
  const position = rig.control.position + 1;
  const subject = { kind: 'user', id: grant.user } as const;
  const batch: LogBatch = {
    audience: relay,
    incarnation: rig.control.incarnation,
    entries: [{ position, action: 'revoke', subject, reason: 'forged' }],
    completeTo: position,
    ...changes,
  };
  return {
    type: 'log',
    statement: signStatement('log', logBatchSchema, batch, key ?? grantKey),
  };
}

function leases(live: Live, changes: Partial<LeaseBatch>, key?: SigningKey): ToRelay {
  const { rig, grant } = live;
  const { connector, grantKey } = rig.authority;
  const entry = [grant.tunnel, [9, 9], 1] as LeaseBatch['entries'][number];
  const batch = { connector, entries: [entry], ...changes };
  const statement = signStatement('lease', leaseBatchSchema, batch, key ?? grantKey);
  return { type: 'leases', statement };
}

/** Statements that a data plane must not believe: it drops the channel, does nothing of what they say, and redials. */
const refused: readonly [what: string, make: (live: Live) => ToRelay][] = [
  ['a log signed by a stranger', (live) => log(live, {}, newSigningKey())],
  ['a log signed by the roster key', (live) => log(live, {}, live.rig.authority.rosterKey)],
  ['a log for another relay', (live) => log(live, { audience: newId('relay') })],
  ['a log for a connector', (live) => log(live, { audience: live.grant.connector })],
  ['a log of an incarnation that is past', (live) => log(live, { incarnation: 0 })],
  ['a lease in place of a log', (live) => ({ ...leases(live, {}), type: 'log' }) as ToRelay],
  ['leases signed by a stranger', (live) => leases(live, {}, newSigningKey())],
  ['a log in place of leases', (live) => ({ ...log(live, {}), type: 'leases' }) as ToRelay],
  [
    'an answer to no question about the time',
    ({ rig }) => ({
      type: 'time',
      statement: signStatement(
        'time',
        timeSchema,
        { nonce: randomBytes(16).toString('base64url'), timeMs: 1 },
        rig.authority.grantKey,
      ),
    }),
  ],
  [
    'a bundle of another root',
    ({ rig }) => ({ type: 'bundle', statement: rig.authority.signBundle({}, newSigningKey()) }),
  ],
];

for (const [what, make] of refused) {
  test.serial(`${what} - is not believed, and the tunnel goes on`, async (t) => {
    const live = await openLive(t);
    const { control } = live.rig;
    const hellos = () => control.received.filter(({ type }) => type === 'hello').length;
    const before = hellos();
    control.push(make(live));
    await control.until(() => hellos() > before);
    await assertAlive(t, live);
    // And a true entry still counts afterwards.
    const subject = { kind: 'user', id: live.grant.user } as const;
    control.pushLog([{ action: 'revoke', subject, reason: 'true_one' }]);
    t.is(await live.client.closeCode(), 'ERR_TUNNEL_REVOKED');
    t.is(await live.connector.closeCode(), 'ERR_TUNNEL_REVOKED');
  });
}

test.serial(
  'a log batch pushed again - revokes nothing anew, and knowledge does not fall back',
  async (t) => {
    const rig = await RelayRig.start();
    t.teardown(() => rig.stop());
    const user = newId('user');
    const { relay, grantKey } = rig.authority;
    const subject = { kind: 'user', id: user } as const;
    const entries = [{ action: 'revoke', subject, reason: 'left' }] as const;
    rig.control.pushLog(entries);
    const old: LogBatch = {
      audience: relay,
      incarnation: rig.control.incarnation,
      entries: [{ position: rig.control.position, ...entries[0] }],
      completeTo: rig.control.position,
    };
    rig.control.pushLog([]);
    rig.control.pushLog([{ ...entries[0], subject: { kind: 'user', id: newId('user') } }]);
    // The user came back: this grant was decided after the entry.
    const live = { rig, ...(await rig.tunnel({ user })) };
    const statement = signStatement('log', logBatchSchema, old, grantKey);
    rig.control.push({ type: 'log', statement });
    rig.control.push({ type: 'log', statement });
    await assertAlive(t, live);
    const again = { rig, ...(await rig.tunnel({ user })) };
    await assertAlive(t, again);
  },
);

test.serial('a lease pushed again, lowered or for another tunnel - extends nothing', async (t) => {
  const live = await openLive(t, { untilMs: Date.now() + 4_000, sequence: [3, 5] });
  const { control } = live.rig;
  const farMs = Date.now() + 50_000;
  const { tunnel } = live.grant;
  const entry = (sequence: [number, number], id = tunnel): LeaseBatch['entries'][number] => [
    id,
    sequence,
    farMs,
  ];
  for (const changes of [
    { entries: [entry([3, 5])] },
    { entries: [entry([3, 4])] },
    { entries: [entry([2, 99])] },
    { entries: [entry([4, 1], newId('tunnel'))] },
    { entries: [entry([4, 1])], connector: newId('connector') },
  ]) {
    control.push(leases(live, changes));
  }
  await assertAlive(t, live);
  t.is(await live.client.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  t.true(Date.now() < farMs - 20_000);
});
