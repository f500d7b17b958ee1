import { ZtnaError, type FromDevice, type ToDevice } from '../../protocol/index.ts';

/** Requests an agent makes, and the type of the answer to each. `done` answers those that have nothing to tell. */
interface AnswerTypes {
  sign_in: 'signed_in';
  sign_out: 'done';
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
  sign_out: ['done'],
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
};

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
