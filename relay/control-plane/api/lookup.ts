import { isName, newId, ZtnaError } from '../../../protocol/index.ts';
import type {
  App,
  Connector,
  Device,
  Group,
  Reader,
  Relay,
  Session,
  Site,
  Tunnel,
  Tx,
  User,
} from '../store/index.ts';

type Db = Reader | Tx;

function notFound(kind: string, name: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_NOT_FOUND', {
    message: `there is no ${kind} ${name}`,
    hint: `see what there is: ztna-relay ${kind} list`,
  });
}

export function alreadyThere(kind: string, name: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_EXISTS', { message: `there is a ${kind} ${name} already` });
}

/** Refuses what may not name a user, group, site or app. */
export function checkName(kind: string, name: string): void {
  if (isName(name)) return;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `${name} may not name a ${kind}`,
    hint: 'use lower-case letters, digits, ".", "_", "-" and "@", at most 64',
  });
}

/** A user by name or id. Throws ERR_CONFIG_NOT_FOUND, as the others here do. */
export async function getUser(db: Db, name: string): Promise<User> {
  const row = await db
    .selectFrom('users')
    .selectAll()
    .where((eb) => eb.or([eb('name', '=', name), eb('id', '=', name as User['id'])]))
    .executeTakeFirst();
  if (!row) throw notFound('user', name);
  return row;
}

/** A service by name. */
export async function getService(db: Db, name: string): Promise<User> {
  const row = await db
    .selectFrom('users')
    .selectAll()
    .where('name', '=', name)
    .where('kind', '=', 'service')
    .executeTakeFirst();
  if (!row) throw notFound('service', name);
  return row;
}

export async function getGroup(db: Db, name: string): Promise<Group> {
  const row = await db.selectFrom('groups').selectAll().where('name', '=', name).executeTakeFirst();
  if (!row) throw notFound('group', name);
  return row;
}

export async function getSite(db: Db, name: string): Promise<Site> {
  const row = await db.selectFrom('sites').selectAll().where('name', '=', name).executeTakeFirst();
  if (!row) throw notFound('site', name);
  return row;
}

export async function getApp(db: Db, name: string): Promise<App> {
  const row = await db.selectFrom('apps').selectAll().where('name', '=', name).executeTakeFirst();
  if (!row) throw notFound('app', name);
  return row;
}

/** The one row whose id begins with `text`; a whole id is its own beginning. */
function onlyOne<T>(kind: string, text: string, rows: readonly T[]): T {
  const [row, other] = rows;
  if (row === undefined) throw notFound(kind, text);
  if (other !== undefined) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `several ids of a ${kind} begin with ${text}`,
      hint: 'write more of the id',
    });
  }
  return row;
}

/** Ids that begin with `text`, as bounds: ids have no character above `z`. */
function within(text: string): { readonly from: string; readonly to: string } {
  return { from: text, to: `${text}~` };
}

export async function getDevice(db: Db, text: string): Promise<Device> {
  const { from, to } = within(text);
  const rows = await db
    .selectFrom('devices')
    .selectAll()
    .where('id', '>=', from as Device['id'])
    .where('id', '<', to as Device['id'])
    .limit(2)
    .execute();
  return onlyOne('device', text, rows);
}

/** A connector by id or by a name that only one has. */
export async function getConnector(db: Db, text: string): Promise<Connector> {
  const { from, to } = within(text);
  const named = await db
    .selectFrom('connectors')
    .selectAll()
    .where('name', '=', text)
    .where('state', '!=', 'removed')
    .limit(2)
    .execute();
  if (named.length > 0) return onlyOne('connector', text, named);
  const rows = await db
    .selectFrom('connectors')
    .selectAll()
    .where('id', '>=', from as Connector['id'])
    .where('id', '<', to as Connector['id'])
    .limit(2)
    .execute();
  return onlyOne('connector', text, rows);
}

/** A relay by id or name; removed ones by id alone. */
export async function getRelay(db: Db, text: string): Promise<Relay> {
  const named = await db
    .selectFrom('relays')
    .selectAll()
    .where('name', '=', text)
    .where('state', '!=', 'removed')
    .executeTakeFirst();
  if (named) return named;
  const { from, to } = within(text);
  const rows = await db
    .selectFrom('relays')
    .selectAll()
    .where('id', '>=', from as Relay['id'])
    .where('id', '<', to as Relay['id'])
    .limit(2)
    .execute();
  return onlyOne('relay', text, rows);
}

export async function getSession(db: Db, text: string): Promise<Session> {
  const { from, to } = within(text);
  const rows = await db
    .selectFrom('sessions')
    .selectAll()
    .where('id', '>=', from as Session['id'])
    .where('id', '<', to as Session['id'])
    .limit(2)
    .execute();
  return onlyOne('session', text, rows);
}

export async function getTunnel(db: Db, text: string): Promise<Tunnel> {
  const { from, to } = within(text);
  const rows = await db
    .selectFrom('tunnels')
    .selectAll()
    .where('id', '>=', from as Tunnel['id'])
    .where('id', '<', to as Tunnel['id'])
    .limit(2)
    .execute();
  return onlyOne('tunnel', text, rows);
}

/** A group that nobody is in. */
export function newGroup(
  name: string,
  createdAtMs: number,
  more: Partial<Pick<Group, 'externalId' | 'provisionedBy' | 'displayName'>> = {},
): Group {
  const none = { externalId: null, provisionedBy: null, displayName: null };
  return { id: newId('group'), name, ...none, createdAtMs, ...more };
}

/** The group of that name, made when there is none. */
export async function ensureGroup(tx: Tx, name: string, nowMs: number): Promise<Group> {
  checkName('group', name);
  const row = newGroup(name, nowMs);
  await tx
    .insertInto('groups')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute();
  return getGroup(tx, name);
}

/** The site of that name, made when there is none. */
export async function ensureSite(tx: Tx, name: string, nowMs: number): Promise<Site> {
  checkName('site', name);
  const row: Site = { id: newId('site'), name, createdAtMs: nowMs };
  await tx
    .insertInto('sites')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute();
  return getSite(tx, name);
}
