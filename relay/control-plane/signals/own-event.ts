import type { AuditRecord } from '../audit/index.ts';
import type { SetClaims } from './transmitter-key.ts';
import type { TransmitSettings } from '../../signal-settings.ts';

/** Something that happened here and that others may be told. */
export interface OwnEvent {
  readonly type: 'session-revoked' | 'device-compliance-change';
  readonly atMs: number;
  readonly user: string | null;
  readonly device: string | null;
  readonly session: string | null;
  readonly reason: string;
  /** Of a device: what it is from here on. */
  readonly status: 'compliant' | 'not-compliant' | null;
  readonly initiator: 'admin' | 'policy' | 'system';
  /** A signal of others made it happen: those who send signals are not told again. */
  readonly isEcho: boolean;
}

/** The actions in the audit log that may mean something to others. */
export const toldActions: readonly string[] = [
  ...['session.revoke', 'user.revoke', 'user.disable', 'user.remove'],
  ...['device.revoke', 'device.disable', 'device.enable', 'device.compliance'],
  'signal.receive',
];

/** What an audit record means for others, if anything. Pure. `owner` is the user of a device or session in it. */
export function ownEventsOf(record: AuditRecord, owner: string | null): OwnEvent[] {
  if (record.outcome !== 'ok') return [];
  const { action, subject, atMs, actor } = record;
  const details = JSON.parse(record.detailsJson) as Readonly<Record<string, unknown>>;
  const reason =
    typeof details['reason'] === 'string' ? details['reason'] : action.replace('.', '_');
  const event: OwnEvent = {
    type: 'session-revoked',
    atMs,
    user: record.userName ?? owner,
    device: null,
    session: null,
    reason,
    status: null,
    initiator: actor.startsWith('uid:') ? 'admin' : 'system',
    isEcho: actor.startsWith('signal:'),
  };
  const compliance = (status: OwnEvent['status']): OwnEvent => ({
    ...event,
    type: 'device-compliance-change',
    device: subject,
    status,
  });
  switch (action) {
    case 'session.revoke':
      return [{ ...event, session: subject }];
    case 'user.revoke':
    case 'user.disable':
    case 'user.remove':
      return [event];
    case 'device.revoke':
      return [{ ...event, device: subject }, compliance('not-compliant')];
    case 'device.disable':
      return [compliance('not-compliant')];
    case 'device.enable':
      return [compliance('compliant')];
    case 'device.compliance': {
      const { status } = details;
      if (status !== 'compliant' && status !== 'not-compliant') return [];
      return [{ ...compliance(status), initiator: 'policy' }];
    }
    case 'signal.receive':
      return signalled(event, subject, details);
    default:
      return [];
  }
}

/** What a signal of others did here. */
function signalled(
  event: OwnEvent,
  subject: string,
  { effect, target, event: type }: Readonly<Record<string, unknown>>,
): OwnEvent[] {
  const about = {
    ...event,
    reason: `signal_${String(type).replaceAll('-', '_')}`,
    session: target === 'session' ? subject : null,
    device: target === 'device' ? subject : null,
  };
  if (effect === 'restrict_device' || effect === 'lift_device') {
    const status = effect === 'lift_device' ? 'compliant' : 'not-compliant';
    return [{ ...about, type: 'device-compliance-change', status }];
  }
  const hasEnded = ['end_sessions', 'sign_in_again', 'disable_user'].includes(String(effect));
  return hasEnded ? [about] : [];
}

const caep = 'https://schemas.openid.net/secevent/caep/event-type/';

/** The claims of a token that tells `event` to a receiver. */
export function toSetClaims(
  event: OwnEvent,
  to: { readonly jti: string; readonly issuer: string; readonly iatMs: number } & Pick<
    TransmitSettings,
    'emailDomain'
  >,
): SetClaims {
  const seconds = (ms: number) => Math.floor(ms / 1_000);
  const user = event.user === null ? null : userSubject(event.user, to);
  const parts = {
    ...(user ? { user } : {}),
    ...(event.device === null ? {} : { device: { format: 'opaque', id: event.device } }),
    ...(event.session === null ? {} : { session: { format: 'opaque', id: event.session } }),
  };
  const isUserAlone = event.device === null && event.session === null;
  return {
    jti: to.jti,
    iat: seconds(to.iatMs),
    sub_id: user && isUserAlone ? user : { format: 'complex', ...parts },
    events: {
      [`${caep}${event.type}`]: {
        event_timestamp: seconds(event.atMs),
        initiating_entity: event.initiator,
        reason_admin: { en: event.reason },
        ...(event.status === null
          ? {}
          : {
              previous_status: event.status === 'compliant' ? 'not-compliant' : 'compliant',
              current_status: event.status,
            }),
      },
    },
  };
}

function userSubject(
  name: string,
  { issuer, emailDomain }: { readonly issuer: string; readonly emailDomain: string | null },
): Record<string, string> {
  if (name.includes('@')) return { format: 'email', email: name };
  if (emailDomain !== null) return { format: 'email', email: `${name}@${emailDomain}` };
  return { format: 'iss_sub', iss: issuer, sub: name };
}

/** What a webhook is sent, as JSON. */
export function toWebhookBody(
  event: OwnEvent,
  id: string,
  issuer: string,
): Record<string, unknown> {
  const { type, user, device, session, reason, status, initiator, isEcho } = event;
  return {
    id,
    type,
    at: new Date(event.atMs).toISOString(),
    issuer,
    subject: { user, device, session },
    reason,
    initiator,
    isEcho,
    ...(status === null ? {} : { status }),
  };
}
