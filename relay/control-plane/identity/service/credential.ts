import * as v from 'valibot';
import type { UserId } from '../../../../protocol/index.ts';
import type { ServiceCredential } from '../../store/database.ts';
import type { Reader, Tx } from '../../store/store.ts';

/** Sessions of services last no longer than they are made for, an hour unless it is said otherwise. */
export const defaultServiceSessionMs = 3_600_000;
const shortestSessionMs = 10_000;
const longestSessionMs = 86_400_000;

/** Credentials of one service: a key that is replaced goes beside the one before it for a while. */
export const maxCredentials = 8;

const sessionMs = v.optional(
  v.pipe(v.number(), v.safeInteger(), v.minValue(shortestSessionMs), v.maxValue(longestSessionMs)),
  defaultServiceSessionMs,
);
const short = v.pipe(v.string(), v.minLength(1), v.maxLength(512));

/** A key of the service's own, which is in a column. */
export const keySettings = v.strictObject({ sessionMs });

/** Tokens that are as good: of this issuer, for this audience, that claim all of this. */
export const tokenSettings = v.strictObject({
  sessionMs,
  issuer: short,
  audience: short,
  /** What is claimed, by name. An issuer signs for many; without any condition each of them would be this service. */
  claims: v.pipe(
    v.record(short, short),
    v.check((claims) => Object.keys(claims).length > 0, 'at least one claim is asked for'),
    v.check((claims) => Object.keys(claims).length <= 16, 'at most 16 claims are asked for'),
  ),
  /** Where the issuer's keys are; null: as it describes itself. */
  jwks: v.optional(v.nullable(short), null),
  ca: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(65_536))), null),
  allowPrivate: v.optional(v.boolean(), false),
});
export type TokenSettings = v.InferOutput<typeof tokenSettings>;

/** A credential as the store has it. */
export type OpenCredential = { readonly id: string } & (
  | { readonly kind: 'key'; readonly publicKey: string; readonly sessionMs: number }
  | { readonly kind: 'token'; readonly settings: TokenSettings; readonly sessionMs: number }
);

export function openCredential(row: ServiceCredential): OpenCredential {
  const { id } = row;
  const settings: unknown = JSON.parse(row.settingsJson);
  if (row.kind === 'key') {
    const { sessionMs: ms } = v.parse(keySettings, settings);
    return { id, kind: 'key', publicKey: row.publicKey ?? '', sessionMs: ms };
  }
  const parsed = v.parse(tokenSettings, settings);
  return { id, kind: 'token', settings: parsed, sessionMs: parsed.sessionMs };
}

export async function readCredentials(db: Reader | Tx, user: UserId): Promise<ServiceCredential[]> {
  return db
    .selectFrom('serviceCredentials')
    .selectAll()
    .where('userId', '=', user)
    .orderBy('createdAtMs')
    .execute();
}
