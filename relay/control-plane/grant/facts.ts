import type { DeviceId, SessionId } from '../../../protocol/index.ts';
import { isSessionLive, sessionEndMs, sessionMethods } from '../identity/index.ts';
import type { HeardPosture, Postures } from '../posture/index.ts';
import type { LiveRisk } from '../risk/index.ts';
import type { RiskContribution } from '../signals/marks.ts';
import type { App, Device, Reader, Session, Site, Tx, User } from '../store/index.ts';

/** A group with the end of the user's place in it. */
export interface GroupFact {
  readonly name: string;
  readonly untilMs: number | null;
}

/** Who asks, as the store knows it at one moment. */
export interface SubjectFacts {
  readonly user: User;
  readonly device: Device;
  readonly session: Session;
  readonly methods: readonly string[];
  /** Every membership that has not ended. */
  readonly groups: readonly GroupFact[];
  /** What the device said of itself last, and when that counts no more. */
  readonly posture: (HeardPosture & { readonly endMs: number }) | null;
  /** How unusual the user behaves, for an app. */
  readonly riskOf: (app: string) => RiskFact;
  /** Two letters; empty where nobody knows. */
  readonly country: string;
  /** The data plane's word. */
  readonly address: string;
  readonly nowMs: number;
}

/** How unusual the user's behaviour is, from 0 to 100, and what makes it so. */
export interface RiskFact {
  readonly score: number;
  readonly factors: readonly string[];
  /** The same with what each adds, and why. */
  readonly contributions: readonly RiskPart[];
}

export interface RiskPart {
  readonly name: string;
  readonly points: number;
  readonly detail: string;
}

/** What behaviour adds up to, with each part of it, for an audit record; nothing while there is nothing unusual. */
export function riskDetails({ score, contributions }: RiskFact): Record<string, unknown> {
  return score === 0 ? {} : { risk: { score, contributions } };
}

/** What is asked for. */
export interface AppFacts {
  readonly app: App;
  readonly site: Site;
}

/** Why somebody may do nothing at all, whatever policy says. */
export type Disqualification =
  | 'session_ended'
  | 'device_revoked'
  | 'device_disabled'
  | 'device_pending'
  | 'device_restricted'
  | 'user_disabled'
  | 'user_expired';

/** Who asks, as far as the store alone knows; what ends by itself is here until it does. */
export interface StoredSubject {
  readonly user: User;
  readonly device: Device;
  readonly session: Session;
  readonly methods: readonly string[];
  readonly groups: readonly GroupFact[];
  /** What other systems say of the risk. */
  readonly told: readonly RiskContribution[];
}

interface Sources {
  readonly postures: Postures;
  readonly risk: LiveRisk;
}

/** Reads user, groups, device with its posture, and session; undefined when one of them does not exist. */
export async function readSubject(
  sources: Sources,
  db: Reader | Tx,
  ids: { readonly device: DeviceId; readonly session: SessionId },
  at: { readonly address: string; readonly nowMs: number },
): Promise<SubjectFacts | undefined> {
  const stored = await readStoredSubject(sources, db, ids, at.nowMs);
  return stored && subjectAt(sources, db, stored, at);
}

/** Reads what only changes by a change of the store; all of it is about these ids, and the user of that session. */
export async function readStoredSubject(
  { risk }: Sources,
  db: Reader | Tx,
  ids: { readonly device: DeviceId; readonly session: SessionId },
  nowMs: number,
): Promise<StoredSubject | undefined> {
  const session = await db
    .selectFrom('sessions')
    .selectAll()
    .where('id', '=', ids.session)
    .where('deviceId', '=', ids.device)
    .executeTakeFirst();
  const device = await db
    .selectFrom('devices')
    .selectAll()
    .where('id', '=', ids.device)
    .executeTakeFirst();
  if (!session || !device) return undefined;
  const user = await db
    .selectFrom('users')
    .selectAll()
    .where('id', '=', session.userId)
    .executeTakeFirst();
  // A device belongs to one user; a session of another on it counts for nothing.
  if (!user || device.userId !== user.id) return undefined;
  const groups = await readGroups(db, user.id, nowMs);
  const methods = sessionMethods(session);
  const who = { user: user.id, device: device.id, session: session.id };
  const told = await risk.readTold(db, who, nowMs);
  return { user, device, session, methods, groups, told };
}

/** The same subject with all that passes, or that nobody writes down, as it is now. */
export async function subjectAt(
  { postures, risk }: Sources,
  db: Reader | Tx,
  stored: StoredSubject,
  at: { readonly address: string; readonly nowMs: number },
): Promise<SubjectFacts> {
  const { user, device, session, methods, told } = stored;
  const { nowMs, address } = at;
  const groups = groupsAt(stored.groups, nowMs);
  const posture = await readPosture(postures, db, device.id, nowMs);
  await risk.know(db, user.id);
  const riskOf = risk.tell(user.id, told, nowMs);
  const country = risk.countryOf(address);
  return { user, device, session, methods, groups, posture, riskOf, country, address, nowMs };
}

/** Those that have not ended; the very same list while none has. */
function groupsAt(groups: readonly GroupFact[], nowMs: number): readonly GroupFact[] {
  const isOver = ({ untilMs }: GroupFact) => untilMs !== null && untilMs <= nowMs;
  return groups.some(isOver) ? groups.filter((group) => !isOver(group)) : groups;
}

export async function readPosture(
  postures: Postures,
  db: Reader | Tx,
  device: DeviceId,
  nowMs: number,
): Promise<SubjectFacts['posture']> {
  const heard = await postures.read(db, device, nowMs);
  return heard ? { ...heard, endMs: heard.atMs + postures.maxAgeMs } : null;
}

export async function readGroups(
  db: Reader | Tx,
  user: User['id'],
  nowMs: number,
): Promise<GroupFact[]> {
  const given = await db
    .selectFrom('memberships')
    .innerJoin('groups', 'groups.id', 'memberships.groupId')
    .select(['groups.name', 'memberships.untilMs'])
    .where('memberships.userId', '=', user)
    .where((eb) =>
      eb.or([eb('memberships.untilMs', 'is', null), eb('memberships.untilMs', '>', nowMs)]),
    )
    .execute();
  const provided = await db
    .selectFrom('providedMemberships')
    .innerJoin('groups', 'groups.id', 'providedMemberships.groupId')
    .select('groups.name')
    .where('providedMemberships.userId', '=', user)
    .execute();
  const groups = new Map(given.map((group) => [group.name, group]));
  for (const { name } of provided) groups.set(name, { name, untilMs: null });
  return [...groups.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

export async function readApp(
  db: Reader | Tx,
  which: { readonly name: string } | { readonly id: App['id'] },
): Promise<AppFacts | undefined> {
  const app = await db
    .selectFrom('apps')
    .selectAll()
    .where('name' in which ? 'name' : 'id', '=', 'name' in which ? which.name : which.id)
    .executeTakeFirst();
  if (!app) return undefined;
  const site = await db
    .selectFrom('sites')
    .selectAll()
    .where('id', '=', app.siteId)
    .executeTakeFirst();
  return site && { app, site };
}

export async function readApps(db: Reader | Tx): Promise<AppFacts[]> {
  const sites = new Map((await db.selectFrom('sites').selectAll().execute()).map((s) => [s.id, s]));
  const apps = await db.selectFrom('apps').selectAll().orderBy('name').execute();
  return apps.flatMap((app) => {
    const site = sites.get(app.siteId);
    return site ? [{ app, site }] : [];
  });
}

/** Why the subject may do nothing, or undefined when policy has to decide. */
export function disqualificationOf(subject: SubjectFacts): Disqualification | undefined {
  const { user, device, session, nowMs } = subject;
  if (device.state === 'revoked') return 'device_revoked';
  if (user.disabled === 1) return 'user_disabled';
  if (user.expiresAtMs !== null && user.expiresAtMs <= nowMs) return 'user_expired';
  if (device.state === 'disabled') return 'device_disabled';
  if (device.state === 'pending') return 'device_pending';
  if (device.restrictedJson !== '[]') return 'device_restricted'; // a signal said so
  return isSessionLive(session, nowMs) ? undefined : 'session_ended';
}

/** When the subject's permission ends by itself, whatever policy says. */
export function knownEndMs(subject: SubjectFacts): number {
  return Math.min(sessionEndMs(subject.session), subject.user.expiresAtMs ?? Infinity);
}

/** The same subject at a later moment: without the memberships that have ended by then. */
export function atLater(subject: SubjectFacts, nowMs: number): SubjectFacts {
  return { ...subject, groups: groupsAt(subject.groups, nowMs), nowMs };
}
