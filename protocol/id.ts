import { randomBytes } from 'node:crypto';
import * as v from 'valibot';

/** What an id names; also its prefix. */
const prefixes = {
  user: 'usr',
  group: 'grp',
  session: 'ses',
  device: 'dev',
  site: 'sit',
  app: 'app',
  connector: 'con',
  instance: 'ins',
  relay: 'rel',
  tunnel: 'tun',
  grant: 'gra',
  decision: 'dec',
  invite: 'inv',
} as const;

export type IdKind = keyof typeof prefixes;

/** An opaque 128-bit id, `<prefix>_<26 characters>`; ids of two kinds do not mix. */
export type Id<K extends IdKind> = string & { readonly __id: K };

export type UserId = Id<'user'>;
export type GroupId = Id<'group'>;
export type SessionId = Id<'session'>;
export type DeviceId = Id<'device'>;
export type SiteId = Id<'site'>;
export type AppId = Id<'app'>;
export type ConnectorId = Id<'connector'>;
export type InstanceId = Id<'instance'>;
export type RelayId = Id<'relay'>;
export type TunnelId = Id<'tunnel'>;
export type GrantId = Id<'grant'>;
export type DecisionId = Id<'decision'>;
export type InviteId = Id<'invite'>;

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz'; // Crockford's base 32

/** A fresh random id. */
export function newId<K extends IdKind>(kind: K): Id<K> {
  let bits = BigInt('0x' + randomBytes(16).toString('hex'));
  let text = '';
  for (let i = 0; i < 26; i++) {
    text = (alphabet[Number(bits & 31n)] ?? '') + text;
    bits >>= 5n;
  }
  return `${prefixes[kind]}_${text}` as Id<K>;
}

/** True when `text` has the form of an id of that kind. */
export function isId<K extends IdKind>(kind: K, text: unknown): text is Id<K> {
  return (
    typeof text === 'string' &&
    text.length === 30 &&
    text.startsWith(prefixes[kind] + '_') &&
    /^[0-9a-hjkmnp-tv-z]{26}$/.test(text.slice(4))
  );
}

/** Schema of an id of one kind. */
export function idSchema<K extends IdKind>(kind: K): v.CustomSchema<Id<K>, undefined> {
  return v.custom<Id<K>>((text) => isId(kind, text));
}

/** Names that people give: users, groups, sites, apps. Refuses separators, wildcards and look-alikes. */
export const namePattern = /^[a-z0-9](?:[a-z0-9._@-]{0,62}[a-z0-9])?$/;

/** True when `text` may name a user, group, site or app. */
export function isName(text: string): boolean {
  return namePattern.test(text) && !text.includes('..');
}
