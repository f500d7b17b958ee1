import {
  signStatement,
  timeSchema,
  oldestWireVersion,
  wireVersion,
  ZtnaError,
  type RevocationEntry,
  type Subject,
} from '../../../protocol/index.ts';
import { mayMatter, tunnelColumns } from '../live/audience.ts';
import type { LogFeed } from '../live/log-feed.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';

/** Control time for a nonce, signed. */
export function answerTime(services: Services, nonce: string) {
  const { clock, authority } = services;
  const statement = signStatement(
    'time',
    timeSchema,
    { nonce, timeMs: clock.nowMs() },
    authority.grantKey,
  );
  return { type: 'time', statement } as const;
}

/** The highest version that both sides speak. Throws ERR_HANDSHAKE_VERSION. */
export function chooseVersion(versions: { readonly min: number; readonly max: number }): number {
  const version = Math.min(versions.max, wireVersion);
  if (version < Math.max(versions.min, oldestWireVersion)) {
    throw new ZtnaError('ERR_HANDSHAKE_VERSION');
  }
  return version;
}

/** The bundle, for a peer that has an older one. */
export function newerBundle(services: Services, known: number): string | null {
  return services.bundle.version > known ? services.bundle.statement : null;
}

/** Entries of the log read at once; a peer that was away gets as many as it needs. */
const pageEntries = 256;

/** How far back entries can matter to a grant that is still good, with room for clocks and slow paths. */
const grantHorizonMs = 5 * 60_000;

/**
 * Entries that a peer may have missed: everything since the oldest tunnel it still has, and since any grant that
 * could still be used. `concerns` says which are its own.
 */
async function missedEntries(
  services: Services,
  tunnels: readonly string[],
  concerns: (entry: RevocationEntry) => boolean,
  upTo: number,
): Promise<RevocationEntry[]> {
  const { store, clock, feed } = services;
  const horizonMs = clock.nowMs() - grantHorizonMs;
  const startsMs: number[] = [horizonMs];
  for (const ids of inParts(tunnels)) {
    const row = await store.db
      .selectFrom('tunnels')
      .select((eb) => eb.fn.min('createdAtMs').as('firstMs'))
      .where('id', 'in', ids)
      .executeTakeFirst();
    if (typeof row?.firstMs === 'number') startsMs.push(row.firstMs);
  }
  const first = await store.db
    .selectFrom('revocations')
    .select('position')
    .where('incarnation', '=', feed.incarnation)
    .where(
      'atMs',
      '>=',
      startsMs.reduce((a, b) => Math.min(a, b)),
    )
    .orderBy('position')
    .limit(1)
    .executeTakeFirst();
  if (!first) return [];
  const missed: RevocationEntry[] = [];
  let position = first.position - 1;
  for (;;) {
    const page = await services.revocations.since(store.db, position, pageEntries);
    missed.push(...page.filter((entry) => entry.position <= upTo && concerns(entry)));
    position = page.at(-1)?.position ?? position;
    if (page.length < pageEntries) return missed;
  }
}

/**
 * Makes a peer known and tells it what it missed, with nothing in between: an entry that becomes durable while the
 * store is read is either read or pushed. `readOwn` reads what names the peer's own, `register` makes it known and
 * welcomes it. Whoever was revoked or removed while it was greeted, when nobody could close its channel yet, loses it here.
 */
export async function registerPeer<
  P extends Parameters<LogFeed['catchUp']>[0] & { close(error: ZtnaError): void },
>(
  services: Services,
  tunnels: readonly string[],
  readOwn: () => Promise<(entry: RevocationEntry) => boolean>,
  register: () => P,
  isEnrolled: () => Promise<boolean>,
): Promise<P> {
  const { feed } = services;
  for (;;) {
    const { head } = feed;
    const missed = await missedEntries(services, tunnels, await readOwn(), head);
    if (feed.head !== head) continue;
    const peer = register();
    feed.catchUp(peer, missed);
    if (!(await isEnrolled())) {
      const error = new ZtnaError('ERR_IDENTITY_REVOKED', { reason: 'identity_revoked' });
      peer.close(error);
      throw error;
    }
    return peer;
  }
}

/** True when an entry names a tunnel of `rows` or one of the peer's own subjects. */
export function concernsAny(
  entry: RevocationEntry,
  own: Subject,
  rows: readonly TunnelSubjects[],
): boolean {
  const { kind, id } = entry.subject;
  if (kind === own.kind && id === own.id) return true;
  return rows.some((row) => row[kind] === id);
}

/** The ids that a tunnel can be revoked by. */
export type TunnelSubjects = Readonly<Record<Subject['kind'], string>>;

/** The tunnels of a connector or device that entries may have to reach it for. */
export async function readOwnTunnels(
  { store, clock }: Services,
  kind: 'connector' | 'device',
  id: string,
): Promise<TunnelSubjects[]> {
  const rows = await store.db
    .selectFrom('tunnels')
    .select(['id', 'userId', 'sessionId', 'deviceId', 'appId', 'connectorId'])
    .where(tunnelColumns[kind], '=', id as never)
    .where(mayMatter(clock.nowMs()))
    .execute();
  return rows.map((row) => ({
    user: row.userId,
    session: row.sessionId,
    device: row.deviceId,
    app: row.appId,
    connector: row.connectorId,
    tunnel: row.id,
  }));
}

/** Reads what the store knows of tunnels by id; unknown ids are left out. */
export async function readTunnelSubjects(
  services: Services,
  ids: readonly string[],
): Promise<(TunnelSubjects & { readonly state: string })[]> {
  const found: (TunnelSubjects & { readonly state: string })[] = [];
  for (const part of inParts(ids)) {
    const rows = await services.store.db
      .selectFrom('tunnels')
      .select(['id', 'userId', 'sessionId', 'deviceId', 'appId', 'connectorId', 'state'])
      .where('id', 'in', part)
      .execute();
    for (const row of rows) {
      found.push({
        user: row.userId,
        session: row.sessionId,
        device: row.deviceId,
        app: row.appId,
        connector: row.connectorId,
        tunnel: row.id,
        state: row.state,
      });
    }
  }
  return found;
}

/** Ids asked for in one statement. */
const partIds = 256;

/** A peer that comes back may name thousands of tunnels: a statement each would keep everybody else waiting. */
function inParts(ids: readonly string[]): LiveTunnel['id'][][] {
  const parts: LiveTunnel['id'][][] = [];
  for (let at = 0; at < ids.length; at += partIds) {
    parts.push(ids.slice(at, at + partIds) as LiveTunnel['id'][]);
  }
  return parts;
}
