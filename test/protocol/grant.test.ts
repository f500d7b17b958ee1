import test from 'ava';
import {
  maxGrantAheadMs,
  maxGrantLength,
  maxGrantLifeMs,
  readGrantClaim,
  verifyGrantAtConnector,
  verifyGrantAtRelay,
  type Grant,
} from '../../protocol/grant.ts';
import { newId } from '../../protocol/id.ts';
import { newNoiseKeyPair, type AuthenticatedPeer } from '../../protocol/noise-xk.ts';
import { rawPublicKey, signStatement, type SigningKey } from '../../protocol/statement.ts';
import * as v from 'valibot';
import { newSigningKey, rawBase64, TestAuthority, testNowMs } from '../support/authority.ts';

const authority = new TestAuthority();
const proved = rawPublicKey(authority.deviceKeys.publicKey) as unknown as AuthenticatedPeer;

function atConnector(statement: string, changes: Record<string, unknown> = {}) {
  return verifyGrantAtConnector(statement, {
    bundle: authority.bundle,
    connector: authority.connector,
    instance: authority.instance,
    peerStatic: proved,
    nowMs: testNowMs,
    ...changes,
  });
}

function atRelay(statement: string, changes: Record<string, unknown> = {}) {
  const { bundle, relay } = authority;
  return verifyGrantAtRelay(statement, { bundle, relay, nowMs: testNowMs, ...changes });
}

function atClient(grant: string, roster = authority.signRoster()) {
  return authority.verifyPermit({ grant, roster });
}

/** Every check of a grant, by who makes it. */
const checks = {
  connector: (grant: string) => atConnector(grant),
  relay: (grant: string) => atRelay(grant),
  client: (grant: string) => atClient(grant).grant,
};

for (const [who, check] of Object.entries(checks)) {
  test(`the ${who}'s check - gives the grant that was signed`, (t) => {
    const grant = authority.grant();
    const statement = authority.signGrant(grant);
    t.like(check(statement), { ...grant, statement });
    t.true(statement.length < maxGrantLength);
  });

  test(`the ${who}'s check - every byte flipped in turn is refused before it is parsed`, (t) => {
    const bytes = Buffer.from(authority.signGrant(), 'latin1');
    t.true(bytes.length > 1_000);
    for (let index = 0; index < bytes.length; index++) {
      const copy = Buffer.from(bytes);
      copy[index] = (copy[index] ?? 0) ^ (1 << (index % 8));
      t.throws(() => check(copy.toString('latin1')), { code: 'ERR_STATEMENT_REFUSED' });
    }
  });

  test(`the ${who}'s check - a grant signed by any key but a grant key is refused`, (t) => {
    for (const key of [authority.root, authority.rosterKey, newSigningKey()]) {
      t.throws(() => check(authority.signGrant({}, key)), { code: 'ERR_STATEMENT_REFUSED' });
    }
  });

  test(`the ${who}'s check - another kind of statement by the grant key is refused`, (t) => {
    for (const kind of ['lease', 'log', 'time'] as const) {
      const statement = signStatement(
        kind,
        v.looseObject({}),
        authority.grant(),
        authority.grantKey,
      );
      t.throws(() => check(statement), { code: 'ERR_STATEMENT_REFUSED' });
      t.throws(() => check(statement.replace(kind, 'grant')), { code: 'ERR_STATEMENT_REFUSED' });
    }
  });

  test(`the ${who}'s check - a grant is good until its last millisecond`, (t) => {
    const ending = (expiresAtMs: number) =>
      authority.signGrant({ issuedAtMs: testNowMs - 1_000, expiresAtMs });
    t.notThrows(() => check(ending(testNowMs + 1)));
    t.throws(() => check(ending(testNowMs)), { code: 'ERR_GRANT_EXPIRED' });
    t.throws(() => check(ending(testNowMs - 1)), { code: 'ERR_GRANT_EXPIRED' });
  });

  test(`the ${who}'s check - a life above the limit, backwards or in the future is refused`, (t) => {
    const life = (issuedAtMs: number, expiresAtMs: number) =>
      authority.signGrant({ issuedAtMs, expiresAtMs });
    const refused = { code: 'ERR_GRANT_REFUSED' };
    t.notThrows(() => check(life(testNowMs, testNowMs + maxGrantLifeMs)));
    t.throws(() => check(life(testNowMs, testNowMs + maxGrantLifeMs + 1)), refused);
    t.throws(() => check(life(0, testNowMs + 1)), refused);
    t.throws(() => check(life(testNowMs + 2, testNowMs + 1)), refused);
    const ahead = testNowMs + maxGrantAheadMs;
    t.notThrows(() => check(life(ahead, ahead + 1)));
    t.throws(() => check(life(ahead + 1, ahead + 2)), refused);
  });

  test(`the ${who}'s check - another version is refused`, (t) => {
    for (const version of [0, 99]) {
      t.throws(() => check(authority.signGrant({ version })), { code: 'ERR_HANDSHAKE_VERSION' });
    }
  });

  test(`the ${who}'s check - a rightly signed grant with a member changed in form is refused`, (t) => {
    const malformed = { code: 'ERR_MESSAGE_MALFORMED' };
    const grant: Record<string, unknown> = authority.grant();
    for (const member of Object.keys(grant)) {
      const { [member]: value, ...missing } = grant;
      t.throws(() => check(signLoose(missing)), malformed, `without ${member}`);
      if (member !== 'relays') {
        t.throws(
          () => check(signLoose({ ...missing, [member]: value })),
          malformed,
          `${member} moved`,
        );
      }
      t.throws(() => check(signLoose({ ...grant, [member]: { value } })), malformed, member);
      t.throws(() => check(signLoose({ ...grant, [member]: null })), malformed, member);
      t.throws(() => check(signLoose({ ...grant, [`${member}2`]: value })), malformed, member);
    }
    for (const wild of ['*', 'app_*', `${String(grant['app'])},${String(grant['app'])}`, '']) {
      t.throws(() => check(signLoose({ ...grant, app: wild })), malformed);
    }
    t.throws(() => check(signLoose({ ...grant, app: [grant['app']] })), malformed);
    t.throws(() => check(signLoose({ ...grant, relays: [] })), malformed);
  });

  test(`the ${who}'s check - a grant above the cap is refused before anything else`, (t) => {
    t.throws(() => check('x'.repeat(maxGrantLength + 1)), { code: 'ERR_MESSAGE_TOO_LARGE' });
    t.throws(() => check('x'.repeat(maxGrantLength)), { code: 'ERR_STATEMENT_REFUSED' });
  });
}

function signLoose(value: Record<string, unknown>, key: SigningKey = authority.grantKey): string {
  return signStatement('grant', v.looseObject({}), value, key);
}

test('every check - a bundle past its end lets nothing through', (t) => {
  const nowMs = authority.bundle.notAfterMs;
  const late = authority.signGrant({ issuedAtMs: nowMs, expiresAtMs: nowMs + 1_000 });
  const before = authority.signGrant({ issuedAtMs: nowMs - 1, expiresAtMs: nowMs + 1_000 });
  t.notThrows(() => atRelay(before, { nowMs: nowMs - 1 }));
  t.throws(() => atRelay(late, { nowMs }), { code: 'ERR_STATEMENT_REFUSED' });
  t.throws(() => atConnector(late, { nowMs }), { code: 'ERR_STATEMENT_REFUSED' });
});

test('every check - a time that is no number lets nothing through', (t) => {
  t.throws(() => atRelay(authority.signGrant(), { nowMs: NaN }), { code: 'ERR_GRANT_REFUSED' });
  t.throws(() => atConnector(authority.signGrant(), { nowMs: NaN }), { code: 'ERR_GRANT_REFUSED' });
});

const mismatch = { code: 'ERR_GRANT_MISMATCH' };

test('verifyGrantAtConnector - a grant for another connector, instance or device key is refused', (t) => {
  const others: Partial<Grant>[] = [
    { connector: newId('connector') },
    { instance: newId('instance') },
    { deviceKey: rawBase64(newNoiseKeyPair()) },
  ];
  for (const change of others) t.throws(() => atConnector(authority.signGrant(change)), mismatch);
});

test('verifyGrantAtRelay - a grant that names other relays is refused', (t) => {
  t.throws(() => atRelay(authority.signGrant({ relays: [newId('relay')] })), mismatch);
  t.notThrows(() => atRelay(authority.signGrant({ relays: [newId('relay'), authority.relay] })));
});

test('verifyPermit - a grant for another device or device key is refused', (t) => {
  t.throws(() => atClient(authority.signGrant({ device: newId('device') })), mismatch);
  const deviceKey = rawBase64(newNoiseKeyPair());
  t.throws(() => atClient(authority.signGrant({ deviceKey })), mismatch);
});

test('verifyPermit - believes in a connector only by its own roster entry for that app', (t) => {
  const grant = authority.signGrant();
  const refused = { code: 'ERR_STATEMENT_REFUSED' };
  t.throws(
    () => atClient(grant, authority.signRoster({ connector: newId('connector') })),
    mismatch,
  );
  t.throws(() => atClient(grant, authority.signRoster({ apps: [newId('app')] })), mismatch);
  t.throws(() => atClient(grant, authority.signRoster({ apps: [] })), mismatch);
  t.throws(() => atClient(grant, authority.signRoster({}, authority.grantKey)), refused);
  t.throws(() => atClient(grant, grant), refused);
  t.throws(() => atClient(grant, 'x'.repeat(16_385)), { code: 'ERR_MESSAGE_TOO_LARGE' });
  const permit = atClient(grant);
  t.deepEqual(rawPublicKey(permit.connectorKey), rawPublicKey(authority.connectorKeys.publicKey));
});

test('verifyPermit - the largest roster entry fits', (t) => {
  const apps = [...Array.from({ length: 255 }, () => newId('app')), authority.app];
  t.notThrows(() => atClient(authority.signGrant(), authority.signRoster({ apps })));
});

test('signGrant - the largest grant fits', (t) => {
  const most = Number.MAX_SAFE_INTEGER;
  const statement = authority.signGrant({
    generation: most,
    policy: most,
    incarnation: most,
    position: most,
    intervalMs: most,
    holdMs: most,
    sequence: [most, most],
    untilMs: most,
    relays: [authority.relay, ...Array.from({ length: 15 }, () => newId('relay'))],
  });
  t.notThrows(() => atRelay(statement));
});

test('readGrantClaim - checks the signature, size and version and nothing else', (t) => {
  const expired = authority.signGrant({ issuedAtMs: 1, expiresAtMs: 2 });
  t.is(readGrantClaim(expired, authority.bundle).app, authority.app);
  const forged = authority.signGrant({}, authority.rosterKey);
  t.throws(() => readGrantClaim(forged, authority.bundle), { code: 'ERR_STATEMENT_REFUSED' });
});

test('readGrantClaim - what one bundle has signed is nothing to another, however often it was read', (t) => {
  const grant = authority.grant();
  const statement = authority.signGrant(grant);
  for (let i = 0; i < 2; i++) t.like(readGrantClaim(statement, authority.bundle), grant);
  const rotated = { ...authority.bundle, grantKeys: [] };
  t.throws(() => readGrantClaim(statement, rotated), { code: 'ERR_STATEMENT_REFUSED' });
});

for (const [who, check] of Object.entries({ connector: atConnector, relay: atRelay })) {
  test(`the ${who}'s check - a grant that ends between two looks is refused at the second`, (t) => {
    const grant = authority.grant();
    const statement = authority.signGrant(grant);
    t.like(check(statement), { id: grant.id });
    t.throws(() => check(statement, { nowMs: grant.expiresAtMs }), { code: 'ERR_GRANT_EXPIRED' });
  });
}
