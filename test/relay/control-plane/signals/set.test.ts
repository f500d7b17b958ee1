import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SignJWT } from 'jose';
import { ZtnaError } from '../../../../protocol/index.ts';
import { openKeys, type KeyFinder } from '../../../../relay/control-plane/signals/keys.ts';
import { setFaultOf, verifySet } from '../../../../relay/control-plane/signals/set.ts';
import { temporaryDirectory } from '../fixture.ts';
import {
  audience,
  caep,
  claimsOf,
  issuer,
  keySet,
  OutsideServer,
  sign,
  type TokenWishes,
} from './transmitter.ts';

const nowMs = 1_900_000_000_000;
const dayMs = 86_400_000;
const revoked = `${caep}session-revoked`;
const subject = { format: 'email', email: 'alice@example.com' };

const claims = (at = nowMs) => claimsOf(revoked, {}, subject, at);
const token = (wishes: TokenWishes = {}) => sign(claims(), wishes);

async function findKey(t: ExecutionContext): Promise<KeyFinder> {
  const file = join(temporaryDirectory(t), 'jwks.json');
  writeFileSync(file, JSON.stringify(await keySet()));
  return openKeys({ file });
}

async function verify(t: ExecutionContext, text: string, finder?: KeyFinder) {
  return verifySet(text, {
    ...{ issuer, audience, maxAgeMs: dayMs, nowMs },
    findKey: finder ?? (await findKey(t)),
  });
}

async function faultOf(t: ExecutionContext, text: string, finder?: KeyFinder): Promise<unknown> {
  const error = await t.throwsAsync(verify(t, text, finder), { instanceOf: ZtnaError });
  return setFaultOf(error);
}

test('verifySet - answers event, subject and jti of a good token', async (t) => {
  const all = { ...claims(), jti: 'a-1', aud: ['https://other', audience] };
  const set = await verify(t, await sign(all));
  t.is(set.jti, 'a-1');
  t.is(set.event.type, 'session-revoked');
  t.deepEqual(set.subject, subject);
  t.is(set.issuedAtMs, nowMs);
});

const wrong: readonly (readonly [string, string, () => Promise<string>])[] = [
  ['of another issuer', 'invalid_issuer', () => token({ claims: { iss: `${issuer}/` } })],
  ['for another audience', 'invalid_audience', () => token({ claims: { aud: 'https://else' } })],
  ['for no audience', 'invalid_audience', () => token({ claims: { aud: undefined } })],
  ['without jti', 'invalid_request', () => token({ claims: { jti: undefined } })],
  ['with an endless jti', 'invalid_request', () => token({ claims: { jti: 'x'.repeat(300) } })],
  ['without iat', 'invalid_request', () => token({ claims: { iat: undefined } })],
  [
    'about two events',
    'invalid_request',
    () => token({ claims: { events: { [revoked]: {}, [`${caep}x`]: {} } } }),
  ],
  ['about no event', 'invalid_request', () => token({ claims: { events: {} } })],
  ['whose events are no object', 'invalid_request', () => token({ claims: { events: [revoked] } })],
  [
    'whose event is null',
    'invalid_request',
    () => token({ claims: { events: { [revoked]: null } } }),
  ],
  ['issued 3 min ahead', 'invalid_request', () => sign(claims(nowMs + 180_000))],
  ['issued 25 h ago', 'invalid_request', () => sign(claims(nowMs - 25 * 3_600_000))],
  [
    'that could be an access token',
    'invalid_request',
    () => token({ claims: { exp: nowMs / 1_000 + 60 } }),
  ],
  ['with a sub', 'invalid_request', () => token({ claims: { sub: 'alice' } })],
  ['of type JWT, as an ID token is', 'invalid_request', () => token({ header: { typ: 'JWT' } })],
  ['of no type', 'invalid_request', () => token({ header: { typ: undefined } })],
  ['that names no key', 'invalid_key', () => token({ header: { kid: undefined } })],
  ['that names an unknown key', 'invalid_key', () => token({ header: { kid: 'k2' } })],
  [
    'signed by another key',
    'invalid_key',
    () => token({ key: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey }),
  ],
  [
    'signed ES256',
    'invalid_key',
    () =>
      token({
        header: { alg: 'ES256' },
        key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
      }),
  ],
  ['signed PS256', 'invalid_key', () => token({ header: { alg: 'PS256' } })],
  ['larger than 64 KiB', 'invalid_request', () => token({ claims: { more: 'x'.repeat(70_000) } })],
  ['that is none', 'invalid_request', () => Promise.resolve('nothing.of.the.kind')],
  ['that is empty', 'invalid_request', () => Promise.resolve('')],
];

for (const [what, fault, make] of wrong) {
  test(`verifySet - refuses a token ${what}: ${fault}`, async (t) => {
    t.is(await faultOf(t, await make()), fault);
  });
}

test('verifySet - refuses a token without signature, and one signed by the public key as a secret', async (t) => {
  const header = { alg: 'none', typ: 'secevent+jwt', kid: 'k1' };
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  t.is(await faultOf(t, `${part(header)}.${part(claims())}.`), 'invalid_key');
  const [key] = (await keySet()).keys;
  const hmac = await new SignJWT(claims())
    .setProtectedHeader({ alg: 'HS256', typ: 'secevent+jwt', kid: 'k1' })
    .sign(Buffer.from(JSON.stringify(key)));
  t.is(await faultOf(t, hmac), 'invalid_key');
});

test('verifySet - refuses an altered token', async (t) => {
  const [head, , signature] = (await token()).split('.');
  const body = Buffer.from(JSON.stringify({ ...claims(), jti: 'else' })).toString('base64url');
  t.is(await faultOf(t, [head, body, signature].join('.')), 'invalid_key');
});

test('verifySet - refuses a key of 1024 bits', async (t) => {
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
  const file = join(temporaryDirectory(t), 'jwks.json');
  writeFileSync(file, JSON.stringify(await keySet(small)));
  // jose would not sign with it either.
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const { createSign } = await import('node:crypto');
  const input = `${part({ alg: 'RS256', typ: 'secevent+jwt', kid: 'k1' })}.${part(claims())}`;
  const signature = createSign('sha256').update(input).sign(small).toString('base64url');
  t.is(await faultOf(t, `${input}.${signature}`, await openKeys({ file })), 'invalid_key');
});

test('verifySet - a payload that lacks what its event must say is refused', async (t) => {
  for (const [type, payload] of [
    ['device-compliance-change', { current_status: 'fine' }],
    ['risk-level-change', { current_level: 'HIGH' }],
    ['credential-change', { credential_type: 'password' }],
    ['session-revoked', { event_timestamp: 'now' }],
  ] as const) {
    const text = await sign(claimsOf(`${caep}${type}`, payload, subject, nowMs));
    t.is(await faultOf(t, text), 'invalid_request', type);
  }
});

test('verifySet - the digest of a token that was signed again is the same', async (t) => {
  const all = claims();
  const first = await verify(t, await sign(all));
  const again = await verify(t, await sign(all, { header: { x: 'y' } }));
  t.is(first.digest, again.digest);
  t.not(first.digest, (await verify(t, await sign({ ...all, iat: 1_899_999_999 }))).digest);
});

test('openKeys - fetches keys once, and looks for an unknown one at most every 30 s', async (t) => {
  const server = await OutsideServer.start();
  t.teardown(() => server.stop());
  const text = JSON.stringify(await keySet());
  server.answer = (_request, _body, response) => response.end(text);
  const finder = await openKeys({
    url: server.url('/jwks'),
    allowPrivate: true,
    caFile: server.caFile(temporaryDirectory(t)),
  });
  await verify(t, await token(), finder);
  await verify(t, await token(), finder);
  for (let i = 0; i < 5; i++) {
    t.is(
      await faultOf(t, await token({ header: { kid: `unknown-${String(i)}` } }), finder),
      'invalid_key',
    );
  }
  t.is(server.requests.length, 1);
});

test('openKeys - keys that cannot be had refuse no token: it may come again', async (t) => {
  const server = await OutsideServer.start();
  t.teardown(() => server.stop());
  const settings = {
    url: server.url('/jwks'),
    allowPrivate: true,
    caFile: server.caFile(temporaryDirectory(t)),
  };
  for (const answer of ['nonsense', '{}', '', 'x'.repeat(300_000)]) {
    server.answer = (_request, _body, response) => response.end(answer);
    const error = await t.throwsAsync(verify(t, await token(), await openKeys(settings)), {
      code: 'ERR_RELAY_UNAVAILABLE',
    });
    t.is(setFaultOf(error), undefined);
  }
  const closed = await openKeys({ ...settings, allowPrivate: false });
  await t.throwsAsync(verify(t, await token(), closed), { code: 'ERR_RELAY_UNAVAILABLE' });
});

test('openKeys - a failure is not followed by another request at once', async (t) => {
  const server = await OutsideServer.start();
  t.teardown(() => server.stop());
  const finder = await openKeys({
    url: server.url('/jwks'),
    allowPrivate: true,
    caFile: server.caFile(temporaryDirectory(t)),
  });
  for (let i = 0; i < 5; i++) {
    await t.throwsAsync(verify(t, await token(), finder), { code: 'ERR_RELAY_UNAVAILABLE' });
  }
  t.is(server.requests.length, 1);
});

test('openKeys - refuses a file that is missing or holds no keys', async (t) => {
  const file = join(temporaryDirectory(t), 'jwks.json');
  await t.throwsAsync(openKeys({ file }), { code: 'ERR_CONFIG_NOT_FOUND' });
  writeFileSync(file, '{"keys":');
  await t.throwsAsync(openKeys({ file }), { code: 'ERR_CONFIG_INVALID' });
});
