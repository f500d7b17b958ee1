import {
  identityVersion,
  ZtnaError,
  type FromDevice,
  type ToDevice,
} from '../../protocol/index.ts';

/** Requests an agent makes, and the type of the answer to each. `done` answers those that have nothing to tell. */
interface AnswerTypes {
  sign_in: 'signed_in';
  sign_out: 'done' | 'signed_out';
  status: 'status';
  apps: 'apps';
  grant: 'permit';
  path: 'path_permit';
  why: 'why';
  posture_needs: 'posture_needs';
  otp_begin: 'otp_secret';
  otp_confirm: 'done' | 'otp_state';
  otp_list: 'otp_state';
  otp_remove: 'done' | 'otp_state';
  providers: 'providers';
  sign_in_begin: 'sign_in_started';
  sign_in_finish: 'signed_in';
  service_challenge: 'service_nonce';
  service_sign_in: 'signed_in';
  devices: 'devices';
  device_revoke: 'done';
  factors: 'factors';
  recovery_begin: 'recovery_codes';
  passkey_remove: 'done';
}
export type RequestType = keyof AnswerTypes;

/** A request as its asker writes it; the channel numbers it. */
export type Request<T extends RequestType> = { readonly type: T } & Omit<
  Extract<FromDevice, { type: T }>,
  'id' | 'type'
>;

/** The answer to a request of type T. */
export type Answer<T extends RequestType> = Extract<ToDevice, { type: AnswerTypes[T] }>;

const answerTypes: Readonly<Record<RequestType, readonly ToDevice['type'][]>> = {
  sign_in: ['signed_in'],
  sign_out: ['done', 'signed_out'],
  status: ['status'],
  apps: ['apps'],
  grant: ['permit'],
  path: ['path_permit'],
  why: ['why'],
  posture_needs: ['posture_needs'],
  otp_begin: ['otp_secret'],
  otp_confirm: ['done', 'otp_state'],
  otp_list: ['otp_state'],
  otp_remove: ['done', 'otp_state'],
  providers: ['providers'],
  sign_in_begin: ['sign_in_started'],
  sign_in_finish: ['signed_in'],
  service_challenge: ['service_nonce'],
  service_sign_in: ['signed_in'],
  devices: ['devices'],
  device_revoke: ['done'],
  factors: ['factors'],
  recovery_begin: ['recovery_codes'],
  passkey_remove: ['done'],
};

/** What control planes before `identityVersion` do not know, and must not be sent. */
const identityRequests: ReadonlySet<RequestType> = new Set<RequestType>([
  'providers',
  'sign_in_begin',
  'sign_in_finish',
  'service_challenge',
  'service_sign_in',
  'devices',
  'device_revoke',
  'factors',
  'recovery_begin',
  'passkey_remove',
]);

/** Throws ERR_RELAY_UNAVAILABLE (`version_old`) where a control plane of that version does not know such a request. */
export function checkIsKnown(type: RequestType, version: number): void {
  if (version >= identityVersion || !identityRequests.has(type)) return;
  throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: 'the relay is older than this command and does not know it',
    hint: 'have the relay upgraded; with a password: ztna login --password-stdin',
    hop: 'relay',
    reason: 'version_old',
  });
}

/** True when `message` is the kind of answer that the request asks for. */
export function isAnswerTo<T extends RequestType>(
  type: T,
  message: ToDevice,
): message is Answer<T> {
  return answerTypes[type].includes(message.type);
}

/** The answer, if it is of the kind that the request asks for. Throws ERR_MESSAGE_UNEXPECTED. */
export function expectAnswer<T extends RequestType>(type: T, answer: ToDevice): Answer<T> {
  if (isAnswerTo(type, answer)) return answer;
  throw new ZtnaError('ERR_MESSAGE_UNEXPECTED', { hop: 'relay' });
}
