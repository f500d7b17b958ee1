import * as v from 'valibot';
import { isId, isName, ZtnaError, type DeviceId, type SessionId } from '../../../protocol/index.ts';
import type { Device, Reader, Session, Tx, User } from '../store/index.ts';
import { refuseSet } from './set.ts';
import type { SubjectSettings } from '../../signal-settings.ts';

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(512));
const email = v.object({ format: v.literal('email'), email: text });
const issSub = v.object({ format: v.literal('iss_sub'), iss: text, sub: text });
const opaque = v.object({ format: v.literal('opaque'), id: text });
const simple = v.variant('format', [email, issSub, opaque]);
const other = v.looseObject({ format: text });
const complex = v.object({
  format: v.literal('complex'),
  user: v.optional(other),
  device: v.optional(other),
  session: v.optional(other),
});
const understood: readonly string[] = ['email', 'iss_sub', 'opaque', 'complex'];
type Simple = v.InferOutput<typeof simple>;

/** Whom an event is about, as its transmitter says it. Formats that we do not know name nobody. */
export interface NamedSubject {
  readonly user: Simple | null;
  readonly device: Simple | null;
  readonly session: Simple | null;
  /** One identifier for whatever it names. */
  readonly any: Simple | null;
  /** It says a part in a way that we do not know, which must not be taken for less than it is. */
  readonly isUnclear: boolean;
}

/** Members that say where user, device and session belong, which changes nothing about who they are. */
const knownMembers: readonly string[] = [
  ...['format', 'user', 'device', 'session'],
  ...['tenant', 'org_unit', 'group'],
];

/** Reads a subject identifier (RFC 9493). Throws ERR_STATEMENT_REFUSED with reason `invalid_request`. */
export function parseSubject(value: unknown): NamedSubject {
  const nobody = { user: null, device: null, session: null, any: null, isUnclear: false };
  const whole = v.safeParse(complex, value);
  if (!whole.success) return { ...nobody, ...one(value, 'any') };
  const { user, device, session } = whole.output;
  return {
    ...nobody,
    ...(user === undefined ? {} : one(user, 'user')),
    // Sessions and devices go by ids that are ours or not; how others write theirs does not matter.
    ...(device === undefined ? {} : { device: one(device, 'device').device ?? foreign }),
    ...(session === undefined ? {} : { session: one(session, 'session').session ?? foreign }),
    isUnclear:
      (user !== undefined && !isSimple(user)) ||
      Object.keys(value as object).some((key) => !knownMembers.includes(key)),
  };
}

/** Stands for an identifier that is nobody's here. */
const foreign: Simple = { format: 'opaque', id: '?' };

function one(value: unknown, as: 'user' | 'device' | 'session' | 'any'): Partial<NamedSubject> {
  if (v.is(simple, value)) return { [as]: value };
  const named = v.safeParse(other, value);
  if (named.success && !understood.includes(named.output.format)) return { isUnclear: true };
  throw refuseSet('invalid_request', 'the token says not whom it is about');
}

function isSimple(value: { readonly format: string }): value is Simple {
  return v.is(simple, value);
}

/** The names that others use for users, devices and sessions of ours: `iss sub` or an opaque id. */
export interface SubjectMap {
  readonly users: ReadonlyMap<string, string>;
  readonly devices: ReadonlyMap<string, string>;
}

export const emptyMap: SubjectMap = { users: new Map(), devices: new Map() };

const mapSchema = v.strictObject({
  users: v.optional(v.record(text, text), {}),
  devices: v.optional(v.record(text, text), {}),
});

/** Reads `{"users":{EXTERNAL: NAME},"devices":{EXTERNAL: dev_…}}`. Throws ERR_CONFIG_INVALID. */
export function parseSubjectMap(json: string, file: string): SubjectMap {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${file} is no JSON`, cause });
  }
  const parsed = v.safeParse(mapSchema, value);
  const wrong = parsed.success
    ? Object.values(parsed.output.devices).find((id) => !isId('device', id))
    : 'it';
  if (!parsed.success || wrong !== undefined) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `${file}: ${wrong ?? 'it'} is no subject map`,
      hint: 'write {"users":{"their id":"our user name"},"devices":{"their id":"dev_…"}}',
    });
  }
  const { users, devices } = parsed.output;
  return { users: new Map(Object.entries(users)), devices: new Map(Object.entries(devices)) };
}

/** Users, devices and sessions of ours that an event is about; each null where it names none. */
export interface FoundSubject {
  readonly user: User | null;
  readonly device: Device | null;
  readonly session: Session | null;
}

/** How subjects of one stream are read. */
export interface SubjectRules {
  readonly issuer: string;
  readonly subjects: SubjectSettings;
  readonly map: SubjectMap;
}

const nobody: FoundSubject = { user: null, device: null, session: null };

/**
 * Finds whom a subject names. Devices and sessions go by our own ids, or the map; never by a host name, which two
 * machines may share and each chooses for itself. A device or session that cannot be one of ours leaves the rest of the
 * subject: everything of that user. Parts that contradict each other, as a device of another user, name nobody.
 */
export async function findSubject(
  db: Reader | Tx,
  named: NamedSubject,
  rules: SubjectRules,
): Promise<FoundSubject> {
  if (named.isUnclear) return nobody;
  const deviceId = deviceIdOf(named.device ?? named.any, rules);
  const sessionId = sessionIdOf(named.session ?? named.any);
  const found: FoundSubject = {
    user: await findUser(db, named.user ?? named.any, rules),
    device: deviceId === undefined ? null : await findDevice(db, deviceId),
    session: sessionId === undefined ? null : await findSession(db, sessionId),
  };
  if (named.user && !found.user) return nobody;
  if (deviceId !== undefined && !found.device) return nobody;
  if (sessionId !== undefined && !found.session) return nobody;
  const owners = [found.user?.id, found.device?.userId, found.session?.userId];
  if (new Set(owners.filter((id) => id !== undefined)).size > 1) return nobody;
  if (found.device && found.session && found.session.deviceId !== found.device.id) return nobody;
  return found;
}

async function findUser(
  db: Reader | Tx,
  named: Simple | null,
  rules: SubjectRules,
): Promise<User | null> {
  const name = named ? userNameOf(named, rules) : undefined;
  if (name === undefined || !isName(name)) return null;
  const row = await db.selectFrom('users').selectAll().where('name', '=', name).executeTakeFirst();
  return row ?? null;
}

/** What a user of ours is called whom others call so. */
export function userNameOf(
  named: Simple,
  { issuer, subjects, map }: SubjectRules,
): string | undefined {
  if (named.format !== 'email') return mapped(map.users, named, issuer);
  const address = named.email.toLowerCase();
  const explicit = map.users.get(named.email) ?? map.users.get(address);
  if (explicit !== undefined || subjects.email === null) return explicit;
  const at = address.lastIndexOf('@');
  if (at < 1) return undefined;
  const { domains } = subjects;
  if (domains.length > 0 && !domains.includes(address.slice(at + 1))) return undefined;
  return subjects.email === 'user_name' ? address : address.slice(0, at);
}

/** By its id, or `issuer subject`; of the stream's own issuer by the subject alone. */
function mapped(
  map: ReadonlyMap<string, string>,
  named: Exclude<Simple, { format: 'email' }>,
  issuer: string,
): string | undefined {
  if (named.format === 'opaque') return map.get(named.id);
  const { iss, sub } = named;
  return map.get(`${iss} ${sub}`) ?? (iss === issuer ? map.get(sub) : undefined);
}

function deviceIdOf(named: Simple | null, { issuer, map }: SubjectRules): DeviceId | undefined {
  if (!named || named.format === 'email') return undefined;
  const id =
    mapped(map.devices, named, issuer) ?? (named.format === 'opaque' ? named.id : undefined);
  return isId('device', id) ? id : undefined;
}

function sessionIdOf(named: Simple | null): SessionId | undefined {
  return named?.format === 'opaque' && isId('session', named.id) ? named.id : undefined;
}

async function findDevice(db: Reader | Tx, id: DeviceId): Promise<Device | null> {
  const row = await db.selectFrom('devices').selectAll().where('id', '=', id).executeTakeFirst();
  return row ?? null;
}

async function findSession(db: Reader | Tx, id: SessionId): Promise<Session | null> {
  const row = await db.selectFrom('sessions').selectAll().where('id', '=', id).executeTakeFirst();
  return row ?? null;
}
