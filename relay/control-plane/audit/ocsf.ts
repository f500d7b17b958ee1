import { isIP } from 'node:net';
import { ocsfClass, ocsfKindOf, type OcsfClass } from './ocsf-class.ts';
import type { ExportedRecord } from './export.ts';

/** The version of the schema that events are written in. */
export const ocsfVersion = '1.3.0';

type Members = Readonly<Record<string, unknown>>;

/** What every event has; the members of its class come with it. */
export interface OcsfEvent extends Members {
  readonly class_uid: OcsfClass;
  readonly category_uid: number;
  readonly activity_id: number;
  readonly type_uid: number;
  readonly severity_id: number;
  readonly status_id: number;
  readonly time: number; // ms
  readonly metadata: Members;
  readonly actor: Members;
  readonly unmapped: Members;
}

/** An audit record as an event of the Open Cybersecurity Schema Framework. Loses nothing: see `unmapped`. Pure. */
export function ocsfEvent(record: ExportedRecord, productVersion: string): OcsfEvent {
  const { writer, position, atMs, actor, action, subject, outcome, ref, app, details } = record;
  const { previous, hash } = record;
  const { classUid, activityId } = ocsfKindOf(record);
  const isFinding = classUid === ocsfClass.detectionFinding;
  const { code, reason } = details;
  const device = deviceOf(record);
  const source = sourceOf(record);
  return {
    class_uid: classUid,
    category_uid: Math.floor(classUid / 1_000),
    activity_id: activityId,
    ...(activityId === 99 ? { activity_name: action } : {}),
    type_uid: classUid * 100 + activityId,
    severity_id: severityOf(record, isFinding),
    // The status of a finding is how far it was looked into.
    status_id: isFinding || outcome === 'ok' ? 1 : 2,
    status: isFinding ? 'New' : outcome === 'ok' ? 'Success' : 'Failure',
    ...(typeof code === 'string' ? { status_code: code } : {}),
    ...(typeof reason === 'string' ? { status_detail: reason } : {}),
    time: atMs,
    message: `${actor} ${action} ${subject}: ${outcome}`,
    metadata: {
      version: ocsfVersion,
      product: { name: 'ztna', vendor_name: 'ztna', version: productVersion },
      profiles: ['host'],
      log_name: 'audit',
      uid: `${writer}/${String(position)}`,
      sequence: position,
      event_code: action,
      ...(ref === null ? {} : { correlation_uid: ref }),
    },
    actor: { user: actorOf(record) },
    ...(device ? { device } : {}),
    ...(source ? { src_endpoint: source } : {}),
    ...membersOf(classUid, record),
    unmapped: { writer, action, subject, outcome, app, details, previous, hash },
  };
}

/** Informational, low or medium: how bad it is for somebody else to judge. */
function severityOf({ outcome }: ExportedRecord, isFinding: boolean): 1 | 2 | 3 {
  if (isFinding || outcome === 'failed') return 3;
  return outcome === 'ok' ? 1 : 2;
}

function membersOf(classUid: OcsfClass, record: ExportedRecord): Members {
  const { action, subject, app, details, atMs, writer, position } = record;
  switch (classUid) {
    case ocsfClass.authentication:
      return {
        user: userOf(record),
        service: { name: 'ztna' },
        is_remote: true,
        ...(subject.startsWith('ses_') ? { session: { uid: subject } } : {}),
        ...(Array.isArray(details['methods']) ? { is_mfa: details['methods'].length > 1 } : {}),
      };
    case ocsfClass.authorizeSession: {
      const { session } = details;
      return {
        user: userOf(record),
        privileges: [`connect ${app ?? 'unknown'}`],
        ...(typeof session === 'string' ? { session: { uid: session } } : {}),
        dst_endpoint: { svc_name: app ?? 'unknown' },
      };
    }
    case ocsfClass.accountChange:
      return { user: { ...userOf(record), uid: subject } };
    case ocsfClass.groupManagement:
      return { group: { name: subject }, user: userOf(record) };
    case ocsfClass.entityManagement:
      return { entity: { uid: subject, name: subject, type: entityTypeOf(action) } };
    case ocsfClass.networkActivity:
      return {
        dst_endpoint: { svc_name: app ?? 'unknown' },
        connection_info: { uid: subject, direction_id: 1, protocol_name: 'tcp' },
        ...trafficOf(details),
      };
    case ocsfClass.detectionFinding:
      return {
        finding_info: {
          uid: `${writer}/${String(position)}`,
          title: titleOf(record),
          types: [action],
          created_time: atMs,
        },
        resources: [{ uid: subject, name: subject, type: entityTypeOf(action) }],
      };
    case ocsfClass.applicationLifecycle:
      return { app: { name: subject, vendor_name: 'ztna' } };
    case ocsfClass.base:
      return {};
  }
}

function titleOf({ action, outcome, details }: ExportedRecord): string {
  const { event, reason } = details;
  const what = typeof event === 'string' ? event : reason;
  const head = outcome === 'refused' ? `${action} refused` : action;
  return typeof what === 'string' ? `${head}: ${what}` : head;
}

function entityTypeOf(action: string): string {
  return action.split('.')[0] ?? action;
}

const userType = { unknown: 0, user: 1, admin: 2, system: 3 } as const;

/** The user that a record is about. */
function userOf({ user }: ExportedRecord): Members {
  return user === null
    ? { name: 'unknown', type_id: userType.unknown }
    : { name: user, type_id: userType.user };
}

/** Who did it: of a device its user, where the record names one. */
function actorOf(record: ExportedRecord): Members {
  const { actor, user } = record;
  const [kind = '', ...rest] = actor.split(':');
  const id = rest.join(':');
  switch (kind) {
    case 'user':
      return { name: id, type_id: userType.user };
    case 'uid':
      return { name: actor, uid: id, type_id: userType.admin };
    case 'device':
      return user === null
        ? { name: actor, uid: id, type_id: userType.unknown }
        : { name: user, type_id: userType.user };
    case 'system':
    case 'connector':
    case 'relay':
    case 'signal':
      return { name: actor, type_id: userType.system };
    default:
      return { name: actor, type_id: userType.unknown };
  }
}

function deviceOf({ actor, subject, details }: ExportedRecord): Members | undefined {
  const uid = actor.startsWith('device:') ? actor.slice('device:'.length) : subject;
  if (!uid.startsWith('dev_')) return undefined;
  const { hostname } = details;
  return { uid, type_id: 0, ...(typeof hostname === 'string' ? { hostname } : {}) };
}

function sourceOf({ actor, details }: ExportedRecord): Members | undefined {
  const told = details['address'];
  const address = typeof told === 'string' ? told : /^address:(.+)$/.exec(actor)?.[1];
  if (address === undefined) return undefined;
  return isIP(address) === 0 ? { name: address } : { ip: address };
}

/** Out is from the client to the app, as everywhere in the schema. */
function trafficOf({ bytesUp, bytesDown }: Members): Members {
  if (typeof bytesUp !== 'number' || typeof bytesDown !== 'number') return {};
  return { traffic: { bytes_out: bytesUp, bytes_in: bytesDown, bytes: bytesUp + bytesDown } };
}
