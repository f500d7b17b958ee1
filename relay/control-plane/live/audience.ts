import type { ExpressionBuilder } from 'kysely';
import type { RevocationEntry, Subject } from '../../../protocol/index.ts';
import type { Database, Reader, Tx } from '../store/index.ts';

/** Ids looked for in one query. */
const idsAtOnce = 500;

/** How long after the end of a tunnel an end of it may still be kept somewhere. */
const rememberedMs = 600_000;

/** What names a tunnel in its row. */
export const tunnelColumns = {
  user: 'userId',
  session: 'sessionId',
  device: 'deviceId',
  app: 'appId',
  connector: 'connectorId',
  tunnel: 'id',
} as const satisfies Record<Subject['kind'], string>;

/** Tunnels that entries must reach the ends of: those that are not closed, may yet be opened, or were closed lately. */
export function mayMatter(nowMs: number) {
  return (eb: ExpressionBuilder<Database, 'tunnels'>) =>
    eb.or([
      eb('tunnels.state', '!=', 'closed'),
      eb('tunnels.grantExpiresAtMs', '>', nowMs),
      eb('tunnels.closedAtMs', '>', nowMs - rememberedMs),
    ]);
}

/**
 * Which of these entries each connector and device is to be told: those that name itself or a tunnel of its own, open or
 * not, as the store has them. Whoever grants holds off those who revoke, so a tunnel that is not there by now was
 * decided behind the entry. A tunnel that is named itself counts whatever its state.
 */
export async function readAudience(
  db: Reader | Tx,
  entries: readonly RevocationEntry[],
  nowMs: number,
): Promise<Map<string, RevocationEntry[]>> {
  const audience = new Map<string, Set<RevocationEntry>>();
  const add = (id: string, entry: RevocationEntry) => {
    const known = audience.get(id);
    if (known) known.add(entry);
    else audience.set(id, new Set([entry]));
  };
  for (const [kind, ofKind] of Map.groupBy(entries, (entry) => entry.subject.kind)) {
    const bySubject = Map.groupBy(ofKind, (entry): string => entry.subject.id);
    if (kind === 'connector' || kind === 'device') {
      for (const [id, own] of bySubject) for (const entry of own) add(id, entry);
    }
    const ids = [...bySubject.keys()];
    for (let at = 0; at < ids.length; at += idsAtOnce) {
      let select = db
        .selectFrom('tunnels')
        .select([tunnelColumns[kind], 'connectorId', 'deviceId'])
        .distinct()
        .where(tunnelColumns[kind], 'in', ids.slice(at, at + idsAtOnce) as never[]);
      if (kind !== 'tunnel') select = select.where(mayMatter(nowMs));
      const rows = await select.execute();
      for (const row of rows) {
        const subject = (row as unknown as Record<string, string>)[tunnelColumns[kind]] ?? '';
        for (const entry of bySubject.get(subject) ?? []) {
          add(row.connectorId, entry);
          add(row.deviceId, entry);
        }
      }
    }
  }
  return new Map(
    [...audience].map(([id, own]) => [id, [...own].sort((a, b) => a.position - b.position)]),
  );
}
