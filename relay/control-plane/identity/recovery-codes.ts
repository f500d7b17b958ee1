import { createHash, randomInt } from 'node:crypto';
import type { UserId } from '../../../protocol/index.ts';
import type { Reader, Tx } from '../store/store.ts';

/** Codes that are made at once, in place of all before. */
export const recoveryCodeCount = 10;
/** Without those that people take for one another. */
const alphabet = '23456789abcdefghjkmnpqrstuvwxyz';
const groups = 3;
const groupLength = 4;
const shape = /^[2-9a-hjkmnp-z]{12}$/;

/** Makes new codes, which are told here once; those of before serve no more. */
export async function makeRecoveryCodes(
  tx: Tx,
  userId: UserId,
  nowMs: number,
): Promise<readonly string[]> {
  await removeRecoveryCodes(tx, userId);
  const codes = Array.from({ length: recoveryCodeCount }, newCode);
  await tx
    .insertInto('recoveryCodes')
    .values(
      codes.map((code) => ({ userId, hash: hashOf(code), usedAtMs: null, createdAtMs: nowMs })),
    )
    .execute();
  return codes;
}

/** True for text that has the form of a code, whoever's it is. */
export function isRecoveryCode(text: string): boolean {
  return shape.test(bare(text));
}

/** Takes a code, once, also for two who type it at the same moment. Answers whether it was one. */
export async function takeRecoveryCode(
  tx: Tx,
  userId: UserId,
  code: string,
  nowMs: number,
): Promise<boolean> {
  const taken = await tx
    .updateTable('recoveryCodes')
    .set({ usedAtMs: nowMs })
    .where('userId', '=', userId)
    .where('hash', '=', hashOf(code))
    .where('usedAtMs', 'is', null)
    .returning('hash')
    .executeTakeFirst();
  return taken !== undefined;
}

export async function countRecoveryCodes(db: Reader | Tx, userId: UserId): Promise<number> {
  const { count } = await db
    .selectFrom('recoveryCodes')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('userId', '=', userId)
    .where('usedAtMs', 'is', null)
    .executeTakeFirstOrThrow();
  return count;
}

export async function removeRecoveryCodes(tx: Tx, userId: UserId): Promise<void> {
  await tx.deleteFrom('recoveryCodes').where('userId', '=', userId).execute();
}

function newCode(): string {
  const group = () =>
    Array.from({ length: groupLength }, () => alphabet[randomInt(alphabet.length)]).join('');
  return Array.from({ length: groups }, group).join('-');
}

/** As people type it: with or without what is between, in any case. */
function bare(code: string): string {
  return code.toLowerCase().replace(/[\s-]/g, '');
}

/** A code is one of 2^59, so a plain hash keeps it. */
function hashOf(code: string): string {
  return createHash('sha256').update(bare(code)).digest('hex');
}
