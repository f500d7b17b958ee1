import type { Reader, SignalMarksTable, Tx } from '../store/index.ts';

/** What a stream says of a subject until it says otherwise. */
export type Mark = SignalMarksTable;

/** What is to be noted: `points` 0 for a device. */
export type Said = Omit<Mark, 'active'> & { readonly isActive: boolean };

/**
 * The mark after `said`, or undefined where it changes nothing: a stream that speaks of the past has spoken of
 * the present already. Pure. Only a mark of the same stream, kind and subject may be its `previous`.
 */
export function nextMark(previous: Mark | undefined, said: Said): Mark | undefined {
  const { isActive, ...rest } = said;
  if (previous === undefined && !isActive) return undefined;
  if (previous && said.happenedAtMs < previous.happenedAtMs) return undefined;
  return { ...rest, active: isActive ? 1 : 0 };
}

/** Notes what a stream says; answers the mark that counts from here on, or undefined when nothing changed. */
export async function noteMark(tx: Tx, said: Said): Promise<Mark | undefined> {
  const previous = await tx
    .selectFrom('signalMarks')
    .selectAll()
    .where('stream', '=', said.stream)
    .where('kind', '=', said.kind)
    .where('subjectKind', '=', said.subjectKind)
    .where('subjectId', '=', said.subjectId)
    .executeTakeFirst();
  const next = nextMark(previous, said);
  if (!next) return undefined;
  const { points, active, happenedAtMs, untilMs } = next;
  await tx
    .insertInto('signalMarks')
    .values(next)
    .onConflict((conflict) =>
      conflict
        .columns(['stream', 'kind', 'subjectKind', 'subjectId'])
        .doUpdateSet({ points, active, happenedAtMs, untilMs }),
    )
    .execute();
  return next;
}

/** A part of somebody's risk score that a stream told, until `untilMs`. */
export interface RiskContribution {
  readonly stream: string;
  readonly points: number;
  readonly untilMs: number;
}

/** What streams say now of the risk of a user, the device used and the session, highest first. */
export async function readRiskMarks(
  db: Reader | Tx,
  of: { readonly user: string; readonly device: string; readonly session: string },
  nowMs: number,
): Promise<RiskContribution[]> {
  return db
    .selectFrom('signalMarks')
    .select(['stream', 'points', 'untilMs'])
    .where('kind', '=', 'risk')
    .where('active', '=', 1)
    .where('untilMs', '>', nowMs)
    .where('subjectId', 'in', [of.user, of.device, of.session])
    .orderBy('points', 'desc')
    .orderBy('stream')
    .execute();
}
