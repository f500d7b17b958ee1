import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Reader, ScimToken } from '../store/index.ts';

/** Tokens of one deployment: all of them are looked at for each request. */
export const maxTokens = 32;

const prefix = 'ztnascim_';

/** That a token was used is written down this often. */
const noteEveryMs = 60_000;

/** A token of 256 random bits; the store keeps its hash alone. */
export function newTokenSecret(): { readonly secret: string; readonly secretHash: string } {
  const secret = prefix + randomBytes(32).toString('base64url');
  return { secret, secretHash: hashOf(secret).toString('hex') };
}

/** Whose token an `authorization` header holds; takes as long whether it is one or not. */
export async function findToken(
  db: Reader,
  authorization: string | undefined,
): Promise<ScimToken | undefined> {
  const [scheme = '', given = ''] = (authorization ?? '').split(' ', 2);
  const hash = hashOf(scheme.toLowerCase() === 'bearer' ? given : '');
  const rows = await db.selectFrom('scimTokens').selectAll().execute();
  return rows.filter((row) => timingSafeEqual(hash, Buffer.from(row.secretHash, 'hex')))[0];
}

/** True when it is time to write down that the token was used. */
export function isUseNoted(token: ScimToken, nowMs: number): boolean {
  return token.lastUsedAtMs !== null && nowMs - token.lastUsedAtMs < noteEveryMs;
}

function hashOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
