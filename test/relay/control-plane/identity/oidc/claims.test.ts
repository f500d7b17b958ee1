import test from 'ava';
import * as v from 'valibot';
import {
  acrOf,
  authenticatedAtMs,
  checkDomain,
  groupsOf,
  methodsOf,
  nameOf,
  readClaim,
} from '../../../../../relay/control-plane/identity/oidc/claims.ts';
import {
  providerSettings,
  type ProviderSettings,
} from '../../../../../relay/control-plane/identity/oidc/settings.ts';

const settingsOf = (more: Partial<ProviderSettings> = {}): ProviderSettings =>
  v.parse(providerSettings, {
    ...{ issuer: 'https://idp.example.com', clientId: 'ztna', title: 'x', scopes: ['openid'] },
    ...more,
  });

const refused = (reason: string) => ({ code: 'ERR_IDENTITY_SIGN_IN_REFUSED', reason });

test('readClaim - finds plain, nested and namespaced ones, and nothing of the prototype', (t) => {
  const claims = {
    groups: ['a'],
    realm_access: { roles: ['b'] },
    'https://example.com/groups': ['c'],
    'x.y': ['whole'],
    x: { y: ['nested'] },
  };
  t.deepEqual(readClaim(claims, 'groups'), ['a']);
  t.deepEqual(readClaim(claims, 'realm_access.roles'), ['b']);
  t.deepEqual(readClaim(claims, 'https://example.com/groups'), ['c']);
  t.deepEqual(readClaim(claims, 'x.y'), ['whole']);
  for (const path of ['constructor', '__proto__', 'realm_access.constructor', 'groups.0.x', 'no']) {
    t.is(readClaim(claims, path), undefined, path);
  }
});

test('nameOf - takes the claim in lower case, as it is or not at all', (t) => {
  t.is(nameOf({ email: 'Ada@Example.com' }, settingsOf()), 'ada@example.com');
  t.is(nameOf({ upn: 'ada' }, settingsOf({ userClaim: 'upn' })), 'ada');
  t.is(nameOf({ upn: 'ada', email_verified: false }, settingsOf({ userClaim: 'upn' })), 'ada');
  for (const [claims, reason] of [
    [{}, 'name_missing'],
    [{ email: '' }, 'name_missing'],
    [{ email: ['ada@example.com'] }, 'name_missing'],
    [{ email: 'ada@example.com', email_verified: false }, 'email_not_verified'],
    [{ email: 'a+b@example.com' }, 'name_not_usable'],
    [{ email: 'аda@example.com' }, 'name_not_usable'], // the first letter is Cyrillic
    [{ email: 'a\u0000b@example.com' }, 'name_not_usable'],
    [{ email: `${'a'.repeat(64)}@example.com` }, 'name_not_usable'],
  ] as const) {
    t.like(
      t.throws(() => nameOf(claims, settingsOf())),
      refused(reason),
    );
  }
});

test('checkDomain - only verified addresses of a domain that may', (t) => {
  const settings = settingsOf({ allowedDomains: ['Example.com'] });
  t.notThrows(() => {
    checkDomain({ email: 'ada@EXAMPLE.com', email_verified: true }, settings);
    checkDomain({ email: 'ada@example.com', email_verified: 'true' }, settings);
    checkDomain({}, settingsOf());
  });
  for (const claims of [
    {},
    { email: 'ada@other.com', email_verified: true },
    { email: 'ada@sub.example.com', email_verified: true },
    { email: 'ada@example.com.other.com', email_verified: true },
    { email: 'example.com@other.com', email_verified: true },
    { email: 'ada@example.com' },
    { email: 'ada@example.com', email_verified: 'false' },
    { email: 'ada@example.com', email_verified: false },
  ]) {
    t.like(
      t.throws(() => {
        checkDomain(claims, settings);
      }),
      refused('domain_not_allowed'),
    );
  }
});

test('groupsOf - maps, folds and leaves out', (t) => {
  const groups = ['/Eng', 'ops', 'ops', 'with space', '/a/b', 7, null];
  t.is(groupsOf({ groups }, settingsOf()), null);
  const plain = settingsOf({ groupsClaim: 'groups' });
  t.deepEqual(groupsOf({ groups }, plain), ['eng', 'ops']);
  t.deepEqual(groupsOf({ groups: 'ops' }, plain), ['ops']);
  t.deepEqual(groupsOf({}, plain), []);
  const mapped = settingsOf({
    groupsClaim: 'groups',
    groupMap: { '/Eng': 'engineering', constructor: 'x' },
  });
  t.deepEqual(groupsOf({ groups: [...groups, 'toString'] }, mapped), ['engineering']);
  const many = Array.from({ length: 1_000 }, (_, at) => `g${String(at)}`);
  t.is(groupsOf({ groups: many }, plain)?.length, 256);
  t.like(
    t.throws(() => groupsOf({ _claim_names: { groups: 'src1' } }, plain)),
    refused('groups_left_out'),
  );
});

test('methodsOf - says what amr and acr mean, in words that are bounded', (t) => {
  t.deepEqual(methodsOf({ amr: ['PWD', 'otp', 'x'.repeat(17), 'a b', 3] }, settingsOf()), [
    'pwd',
    'otp',
  ]);
  t.deepEqual(methodsOf({ amr: 'pwd' }, settingsOf()), []);
  const settings = settingsOf({ mfaAcr: ['2'], phishingResistantAcr: ['gold'] });
  t.deepEqual(methodsOf({ acr: '2' }, settings), ['mfa']);
  t.deepEqual(methodsOf({ acr: 'gold', amr: ['pwd'] }, settings), ['pwd', 'phr']);
  t.deepEqual(methodsOf({ acr: 'phrh' }, settings), ['phr']);
  t.deepEqual(methodsOf({ acr: 2 }, settings), []);
  t.is(
    methodsOf({ amr: Array.from({ length: 99 }, (_, at) => `m${String(at)}`) }, settings).length,
    16,
  );
  t.is(acrOf({ acr: 'x'.repeat(257) }), '');
});

test('authenticatedAtMs - is null for what is no moment', (t) => {
  t.is(authenticatedAtMs({ auth_time: 1_700_000_000.5 }), 1_700_000_000_000);
  for (const at of [undefined, null, '1700000000', Number.NaN, Infinity, -1, 0]) {
    t.is(authenticatedAtMs({ auth_time: at }), null);
  }
});
