import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  FrameType,
  newId,
  signingKey,
  tunnelPath,
  type Grant,
  type SigningKey,
} from '../../protocol/index.ts';
import { newNoiseKeyPair } from '../../protocol/noise-xk.ts';
import { auditHead, auditUntil } from '../support/audit-rows.ts';
import { CheatingClient, type RawPermit } from '../support/cheating-client.ts';
import { Deployment, nameApps } from '../support/deployment.ts';
import { claimOf, Insider } from '../support/insider.ts';
import { launchers, RunningProgram } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  insider: Insider;
  dials: () => number;
  alice: CheatingClient;
  bob: CheatingClient;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

test.before('two apps behind two connectors, two users', async (t) => {
  t.timeout(120_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  let dials = 0;
  const server = createServer((socket) => {
    dials++; // nobody else dials: health checks are off
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const target = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const deployment = await Deployment.start({
    apps: [
      { name: 'app', target, health: 'off' },
      { name: 'second', target, health: 'off' },
    ],
  });
  stops.push(() => deployment.stop());
  const other = await startOther(deployment, target);
  stops.push(() => other.stop());
  const alice = await CheatingClient.open(await deployment.enrol('alice'));
  stops.push(() => alice.close());
  const bob = await CheatingClient.open(await deployment.enrol('bob'));
  stops.push(() => bob.close());
  const insider = await Insider.of(deployment);
  Object.assign(t.context, { deployment, insider, alice, bob, dials: () => dials });
});

/** A connector of another site with an app of its own. */
async function startOther(deployment: Deployment, target: string): Promise<RunningProgram> {
  const code = await deployment.admin('invite', 'connector', 'elsewhere', '--app', 'third');
  const dir = `${deployment.dir}/elsewhere`;
  const apps = await nameApps(dir, [{ name: 'third', target, health: 'off' }]);
  const program = new RunningProgram(
    launchers.connector,
    ['run', '--dir', dir, '--enroll', '-', ...apps],
    {},
  );
  program.child.stdin.end(code);
  await program.line(/^ready$/);
  return program;
}

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

test.serial('control case - an untouched grant opens a tunnel to the app', async (t) => {
  const tunnel = await t.context.alice.mustOpen('app');
  t.is(tunnel.frames[0]?.type, FrameType.Accept);
  tunnel.frame(FrameType.Open, 1, 1, Buffer.from('ping'));
  await tunnel.until(() => tunnel.frames.some((frame) => frame.type === FrameType.Data));
  t.is(t.context.dials(), 1);
  tunnel.end.ws.close();
});

/** Tries the permit; it is refused with `code`, that is recorded once, and no app is dialled. */
async function assertRefused(
  t: ExecutionContext<Context>,
  code: string,
  attempt: () => Promise<unknown>,
): Promise<void> {
  const { deployment, dials } = t.context;
  const dialsBefore = dials();
  const after = await auditHead(deployment);
  t.is(await attempt(), code);
  // An admitted grant whose tunnel came to nothing is recorded as the end of that tunnel.
  const isAdmitted = code === 'ERR_CONNECTOR_OFFLINE' || code === 'ERR_TUNNEL_LEASE_EXPIRED';
  const rows = await auditUntil(deployment, after, 1, ({ action, outcome }) =>
    isAdmitted ? action === 'tunnel.end' : outcome === 'refused',
  );
  t.deepEqual(
    rows.map(({ details }) => details['code']),
    [code],
  );
  t.is(dials(), dialsBefore);
}

type Cheat = (context: Context, permit: RawPermit) => Promise<unknown>;

const newKey = (): SigningKey => signingKey(generateKeyPairSync('ed25519').privateKey);
const changed =
  (changes: (context: Context, grant: Grant) => Partial<Grant>): Cheat =>
  (context, permit) => {
    const grant = context.insider.grant(
      permit.grant,
      changes(context, claimOf<Grant>(permit.grant)),
    );
    return context.alice.open({ ...permit, grant });
  };

/** Each takes a good permit of alice's for `app` and misuses it. */
const cheats: readonly [what: string, code: string, cheat: Cheat][] = [
  ['presented by another device', 'ERR_GRANT_MISMATCH', ({ bob }, permit) => bob.open(permit)],
  [
    'another device’s, and its key claimed inside',
    'ERR_GRANT_MISMATCH',
    ({ bob, alice }, permit) => bob.open(permit, { deviceKeys: alice.deviceKeys }),
  ],
  [
    'expired',
    'ERR_GRANT_EXPIRED',
    changed((_, { issuedAtMs }) => ({
      issuedAtMs: issuedAtMs - 60_000,
      expiresAtMs: issuedAtMs - 1,
    })),
  ],
  [
    'issued for longer than a minute',
    'ERR_GRANT_REFUSED',
    changed((_, { issuedAtMs }) => ({ expiresAtMs: issuedAtMs + 60_001 })),
  ],
  [
    'issued in the future',
    'ERR_GRANT_REFUSED',
    changed((_, { issuedAtMs, expiresAtMs }) => ({
      issuedAtMs: issuedAtMs + 30_000,
      expiresAtMs: expiresAtMs + 30_000,
    })),
  ],
  [
    'over before it was issued',
    'ERR_GRANT_REFUSED',
    changed((_, { issuedAtMs }) => ({
      issuedAtMs: issuedAtMs + 1_000,
      expiresAtMs: issuedAtMs + 999,
    })),
  ],
  [
    'for another relay',
    'ERR_GRANT_MISMATCH',
    async ({ alice, insider }, { grant }) => {
      const changes = { relays: [newId('relay')] };
      return (await alice.present({ grant: insider.grant(grant, changes) })).closeCode();
    },
  ],
  ['of another version', 'ERR_HANDSHAKE_VERSION', changed(() => ({ version: 99 }))],
  ['for another device', 'ERR_GRANT_MISMATCH', changed(() => ({ device: newId('device') }))],
  [
    'for a device key that is not proved',
    'ERR_GRANT_MISMATCH',
    changed(({ bob }) => ({
      deviceKey: bob.identity.noisePublicKey.toString('base64url'),
    })),
  ],
  [
    'for an app that the connector does not serve',
    'ERR_GRANT_MISMATCH',
    changed(() => ({ app: newId('app') })),
  ],
  [
    'for a later path of a tunnel that never was',
    'ERR_TUNNEL_RESUME_REFUSED',
    changed(() => ({ generation: 2 })),
  ],
  [
    'for an instance that is gone',
    'ERR_CONNECTOR_OFFLINE',
    changed(() => ({ instance: newId('instance') })),
  ],
  [
    'for a connector that there is not',
    'ERR_CONNECTOR_OFFLINE',
    changed(() => ({ connector: newId('connector') })),
  ],
  [
    'ahead of the revocation log',
    'ERR_RELAY_UNAVAILABLE',
    changed((_, { position }) => ({ position: position + 1_000 })),
  ],
  [
    'of an older incarnation of the log',
    'ERR_RELAY_UNAVAILABLE',
    changed((_, { incarnation }) => ({ incarnation: incarnation - 1 })),
  ],
  [
    'whose first lease is over',
    'ERR_TUNNEL_LEASE_EXPIRED',
    changed((_, { issuedAtMs }) => ({ untilMs: issuedAtMs - 1 })),
  ],
  [
    'signed by a stranger',
    'ERR_STATEMENT_REFUSED',
    ({ alice, insider }, permit) =>
      alice.open({ ...permit, grant: insider.grant(permit.grant, {}, newKey()) }),
  ],
  [
    'signed by the roster key',
    'ERR_STATEMENT_REFUSED',
    ({ alice, insider }, permit) =>
      alice.open({
        ...permit,
        grant: insider.grant(permit.grant, {}, insider.authority.rosterKey),
      }),
  ],
  [
    'signed by the audit key',
    'ERR_STATEMENT_REFUSED',
    ({ alice, insider }, permit) =>
      alice.open({ ...permit, grant: insider.grant(permit.grant, {}, insider.authority.auditKey) }),
  ],
  [
    'replaced by a roster entry',
    'ERR_STATEMENT_REFUSED',
    async ({ alice }, permit) => (await alice.present({ grant: permit.roster })).closeCode(),
  ],
  ['missing', 'ERR_GRANT_REFUSED', async ({ alice }) => (await alice.dial({})).closeCode()],
  [
    'empty',
    'ERR_STATEMENT_REFUSED',
    async ({ alice }) => (await alice.present({ grant: '' })).closeCode(),
  ],
  [
    'larger than any grant',
    'ERR_MESSAGE_TOO_LARGE',
    async ({ alice }) => (await alice.present({ grant: 'x'.repeat(4_097) })).closeCode(),
  ],
  [
    'presented at another path',
    'ERR_MESSAGE_UNEXPECTED',
    async ({ alice }, { grant }) =>
      (await alice.dial({ 'ztna-grant': grant }, { path: `${tunnelPath}/x` })).closeCode(),
  ],
  [
    'another than the one inside the handshake',
    'ERR_HANDSHAKE_FAILED',
    async ({ alice }, permit) => alice.open(permit, { within: await alice.permit('app') }),
  ],
  [
    'used with a key that is not the machine’s',
    'ERR_GRANT_MISMATCH',
    ({ alice }, permit) => alice.open(permit, { deviceKeys: newNoiseKeyPair() }),
  ],
];

for (const [what, code, cheat] of cheats) {
  test.serial(`grant - ${what}: ${code}`, async (t) => {
    const permit = await t.context.alice.permit('app');
    await assertRefused(t, code, () => cheat(t.context, permit));
  });
}

test.serial('grant - for another connector’s instance: no connector takes it', async (t) => {
  const { alice, insider } = t.context;
  const [permit, third] = [await alice.permit('app'), await alice.permit('third')];
  const { connector, instance } = claimOf<Grant>(third.grant);
  await assertRefused(t, 'ERR_CONNECTOR_OFFLINE', () =>
    alice.open({ ...permit, grant: insider.grant(permit.grant, { connector }) }),
  );
  // All of it is the other connector's but the app, which that one has not in its map.
  const fresh = await alice.permit('app');
  const grant = insider.grant(fresh.grant, { connector, instance });
  await assertRefused(t, 'ERR_GRANT_MISMATCH', () =>
    alice.open({ ...fresh, grant, roster: third.roster }),
  );
});

test.serial('grant - one that served once is refused the second time', async (t) => {
  const { alice } = t.context;
  const permit = await alice.permit('app');
  const first = await alice.open(permit);
  t.true(typeof first === 'object');
  await assertRefused(t, 'ERR_GRANT_USED', () => alice.open(permit));
  if (typeof first === 'object') {
    first.frame(FrameType.Open, 1, 1, Buffer.from('still here'));
    await first.until(() => first.frames.some((frame) => frame.type === FrameType.Data));
    first.end.ws.close();
  }
});

test.serial('grant - of 50 uses at once exactly one opens a tunnel', async (t) => {
  const { alice } = t.context;
  const permit = await alice.permit('app');
  const results = await Promise.all(Array.from({ length: 50 }, () => alice.open(permit)));
  const opened = results.filter((result) => typeof result === 'object');
  t.is(opened.length, 1);
  t.deepEqual(
    [...new Set(results.filter((result) => typeof result === 'string'))],
    ['ERR_GRANT_USED'],
  );
  for (const tunnel of opened) tunnel.end.ws.close();
});

test.serial(
  'grant - with any bit flipped it is refused, and the connector hears nothing of it',
  async (t) => {
    const { alice, deployment } = t.context;
    const { grant } = await alice.permit('app');
    const after = await auditHead(deployment);
    const bytes = Buffer.from(grant, 'latin1');
    const signatureAt = grant.lastIndexOf('.');
    // Every character of the head and of the signature's ends, and a sample of the payload between.
    const places = [...bytes.keys()].filter(
      (at) => at < 26 || at % 23 === 0 || Math.abs(at - signatureAt) < 3 || at >= bytes.length - 4,
    );
    const codes: string[] = [];
    for (const at of places) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 5));
      if (flipped[at] === 0x7f) flipped[at] = (bytes[at] ?? 0) ^ 1; // no header may hold it
      const end = await alice.present({ grant: flipped.toString('latin1') });
      codes.push(await end.closeCode());
    }
    t.true(places.length > 60);
    t.deepEqual([...new Set(codes)], ['ERR_STATEMENT_REFUSED']);
    const rows = await auditUntil(deployment, after, 1); // so many refusals are not all recorded
    t.true(rows.length > 0);
    t.true(rows.every(({ action }) => action === 'admission.refused'));
  },
);

test.serial(
  'client - cheating on itself changes nothing: the connector’s own map decides',
  async (t) => {
    const { alice } = t.context;
    const tunnel = await alice.mustOpen('second');
    const target = Buffer.from('tcp://169.254.169.254:80');
    tunnel.frame(FrameType.Open, 1, 1, target); // a host in the payload is payload
    await tunnel.until(() => tunnel.frames.some((frame) => frame.type === FrameType.Data));
    const echoed = tunnel.frames.filter((frame) => frame.type === FrameType.Data);
    t.deepEqual(Buffer.concat(echoed.map((frame) => frame.payload)), target);
    tunnel.end.ws.close();
  },
);
