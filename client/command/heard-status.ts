import {
  errorRow,
  toZtnaError,
  ZtnaError,
  type SessionFacts,
  type ToDevice,
} from '../../protocol/index.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';

/** What the relay says at this moment, or why it says nothing. */
export interface Heard {
  /** The relay has answered. */
  readonly isHeard: boolean;
  /** Undefined while nobody knows. */
  readonly session: SessionFacts | null | undefined;
  readonly leftMs: number;
  readonly certificateUntilMs: number | undefined;
  readonly failure: ZtnaError | undefined;
}

/** What the relay answered, read at an instant of control time: what has ended by then is over, whatever it says. */
export function toHeard(
  { session, device }: Extract<ToDevice, { type: 'status' }>,
  nowMs: number | undefined,
): Heard {
  const leftMs = session === null || nowMs === undefined ? 0 : session.untilMs - nowMs;
  const isOver = nowMs !== undefined && leftMs <= 0;
  const { certificateUntilMs, state } = device;
  // What such a device had signed in before is of no use to it.
  const failure = failureOf(state);
  const isSignedIn = !isOver && !failure;
  const known = isSignedIn ? session : null;
  return { isHeard: true, session: known, leftMs, certificateUntilMs, failure };
}

function failureOf(
  state: Extract<ToDevice, { type: 'status' }>['device']['state'],
): ZtnaError | undefined {
  switch (state) {
    case 'pending':
      return new ZtnaError('ERR_IDENTITY_DEVICE_PENDING');
    case 'disabled':
      return new ZtnaError('ERR_POLICY_DENIED', { message: 'this device was disabled' });
    case 'enrolled':
    case undefined:
      return undefined;
  }
}

/** Why it did not answer: a relay that is reached and refuses this machine has it signed in no more; of one that is not reached nothing is known. */
export function notHeard(thrown: unknown): Heard {
  const failure = toZtnaError(thrown);
  const session = isRefusal(failure) ? null : undefined;
  return { isHeard: false, session, leftMs: 0, certificateUntilMs: undefined, failure };
}

function isRefusal({ code }: ZtnaError): boolean {
  return errorRow(code).family === 'denied';
}

/** How the relay is reached, in words. */
export function describeRelay({ isHeard, failure }: Heard): string {
  if (isHeard || !failure) return 'online';
  const { code, message } = failure;
  return `${isUnreachable(failure) ? 'offline' : 'refused'}: ${message} [${code}]`;
}

function isUnreachable({ code }: ZtnaError): boolean {
  return errorRow(code).exitCode === errorRow('ERR_RELAY_UNREACHABLE').exitCode;
}

/** Who is signed in, in words. */
export function describeSignIn({ session, leftMs, failure }: Heard): string {
  if (session) {
    const { user, methods, provider, untilMs } = session;
    const at = provider === undefined || provider === 'local' ? '' : ` at ${provider}`;
    return `${user}${at} by ${methods.join(', ')}, until ${toIsoTime(untilMs)} (${describeLeft(leftMs)} left)`;
  }
  if (session === undefined) {
    return failure && isUnreachable(failure) ? 'unknown while offline' : 'unknown';
  }
  return failure ? `no: ${failure.message}` : 'no; run: ztna login';
}

function describeLeft(leftMs: number): string {
  const minutes = Math.floor(leftMs / 60_000);
  if (minutes < 1) return 'less than a minute';
  if (minutes < 60) return `${String(minutes)} min`;
  return `${String(Math.floor(minutes / 60))} h ${String(minutes % 60)} min`;
}
