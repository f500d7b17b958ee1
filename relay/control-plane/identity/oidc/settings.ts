import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import type { Provider } from '../../store/database.ts';
import type { Reader, Tx } from '../../store/store.ts';

const short = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const list = v.optional(v.pipe(v.array(short), v.maxLength(64)), []);

/** What a request to a provider is made of; nothing of it is the operator's to set. */
const ownParameters: readonly string[] = [
  ...['client_id', 'redirect_uri', 'response_type', 'response_mode', 'scope', 'state', 'nonce'],
  ...['code_challenge', 'code_challenge_method', 'max_age', 'acr_values', 'request', 'request_uri'],
];

/** A provider's name: it is part of addresses, and `local` and `service` are this deployment's own. */
export const providerName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/, 'use letters, digits and "-", at most 32'),
  v.check((name) => !['local', 'scim', 'service'].includes(name), 'that name is taken'),
);

/** How users of an OpenID Provider sign in, as the store keeps it. The client secret is kept apart, sealed. */
export const providerSettings = v.strictObject({
  issuer: v.pipe(v.string(), v.maxLength(512)),
  clientId: short,
  title: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  scopes: v.pipe(
    v.array(short),
    v.maxLength(32),
    v.check((scopes) => scopes.includes('openid'), 'openid is among them'),
  ),
  /** The claim that users are called by here. */
  userClaim: v.optional(short, 'email'),
  /** Where a token lists groups: a claim's whole name, or names of nested ones with dots; null for nowhere. */
  groupsClaim: v.optional(v.nullable(short), null),
  /** The provider's groups by our names; with any here, no others count. */
  groupMap: v.optional(v.record(short, short), {}),
  /** Values of `acr` that mean a second factor, one that cannot be phished, and what a step-up asks for. */
  mfaAcr: list,
  phishingResistantAcr: list,
  stepUpAcr: list,
  /** Sent along to its page, where it needs more than the standard says. */
  parameters: v.optional(
    v.record(
      v.pipe(
        short,
        v.check((name) => !ownParameters.includes(name), 'that one is set by the relay'),
      ),
      short,
    ),
    {},
  ),
  recheckMs: v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(1_000), v.maxValue(86_400_000)),
    600_000,
  ),
  /** Whoever the provider signs in becomes a user; else only who is one already. */
  createUsers: v.optional(v.boolean(), true),
  /** With any, only addresses of these domains. */
  allowedDomains: list,
  /** PEM; null for the authorities that this machine trusts. */
  ca: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(65_536))), null),
  allowPrivate: v.optional(v.boolean(), false),
  /** Told by the provider when it was added. */
  hasDeviceCode: v.optional(v.boolean(), false),
});
export type ProviderSettings = v.InferOutput<typeof providerSettings>;

/** A provider as the store has it. */
export interface StoredProvider {
  readonly name: string;
  readonly settings: ProviderSettings;
  readonly row: Provider;
}

export function readSettings(row: Provider): StoredProvider {
  return {
    name: row.name,
    settings: v.parse(providerSettings, JSON.parse(row.settingsJson)),
    row,
  };
}

export async function listProviders(db: Reader | Tx): Promise<StoredProvider[]> {
  const rows = await db.selectFrom('providers').selectAll().orderBy('name').execute();
  return rows.map(readSettings);
}

/** Throws ERR_CONFIG_NOT_FOUND (`provider_unknown`). */
export async function getProvider(db: Reader | Tx, name: string): Promise<StoredProvider> {
  const row = await db
    .selectFrom('providers')
    .selectAll()
    .where('name', '=', name)
    .executeTakeFirst();
  if (row) return readSettings(row);
  throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
    message: `there is no provider ${name}`,
    hint: 'see what there is: ztna-relay provider list',
    reason: 'provider_unknown',
  });
}

/** What a provider's client secret is sealed as. */
export function aboutSecret(name: string): string {
  return `provider ${name}`;
}

/** Where a provider has its people come back to; registered there word by word. */
export function redirectUri(base: string, name: string): string {
  return new URL(`/oidc/${name}/callback`, base).href;
}
