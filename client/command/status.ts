import { X509Certificate } from 'node:crypto';
import {
  errorRow,
  toZtnaError,
  type SessionFacts,
  type ToDevice,
  ZtnaError,
} from '../../protocol/index.ts';
import { describeProxy, isSealed, printJsonLine } from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { openLogger, print, requireIdentity, type GlobalOptions } from './context.ts';

/** What the relay says at this moment, or why it says nothing. */
interface Heard {
  /** The relay has answered. */
  readonly isHeard: boolean;
  /** Undefined while nobody knows. */
  readonly session: SessionFacts | null | undefined;
  readonly leftMs: number;
  readonly certificateUntilMs: number | undefined;
  readonly failure: ZtnaError | undefined;
}

/**
 * Says who this machine is and whether it is signed in, as the relay says it at this moment: what it says nothing of is not known, and
 * what it refuses is not signed in. Ends with 0 when signed in, 4 when not, 3 when the relay could not be asked.
 */
export async function runStatus(options: GlobalOptions): Promise<void> {
  const { profile, identity } = await requireIdentity(options);
  const ask = async (): Promise<Heard> => {
    const agent = await Agent.start({ profile, identity, logger: openLogger() });
    try {
      return toHeard(await agent.request({ type: 'status' }), agent.clock.nowMs());
    } finally {
      await agent.stop();
    }
  };
  const heard = await ask().catch(notHeard);
  const { session, failure, leftMs } = heard;
  if (failure) process.exitCode = errorRow(failure.code).exitCode;
  else if (!session) process.exitCode = errorRow('ERR_IDENTITY_SIGN_IN_NEEDED').exitCode;
  const certificateUntilMs =
    heard.certificateUntilMs ?? new X509Certificate(identity.certificatePem).validToDate.getTime();
  const local = {
    profile: profile.name,
    device: identity.id,
    relay: identity.relayUrl,
    proxy: describeProxy(identity.relayUrl),
    enrolledFor: identity.profile['user'] ?? null,
    certificateUntil: toIsoTime(certificateUntilMs),
    keys: (await isSealed(profile.dir)) ? 'sealed' : 'unsealed',
  };
  if (options.json) {
    printJsonLine({
      ...local,
      isOnline: heard.isHeard,
      isSignedIn: session === undefined ? null : session !== null,
      session: session
        ? {
            id: session.session,
            user: session.user,
            provider: session.provider ?? 'local',
            methods: session.methods,
            signedInAt: toIsoTime(session.signedInAtMs),
            until: toIsoTime(session.untilMs),
            leftSeconds: Math.floor(leftMs / 1_000),
          }
        : null,
      error: failure ? { code: failure.code, message: failure.message } : null,
    });
    return;
  }
  print(`relay        ${local.relay}  ${describeRelay(heard)}`);
  if (local.proxy !== null) print(`proxy        ${local.proxy}`);
  print(`device       ${local.device}  (profile ${local.profile})`);
  print(`signed in    ${describeSignIn(heard)}`);
  if (session && leftMs < soonMs) print('             to go on without a pause, run: ztna login');
  print(`certificate  until ${local.certificateUntil}`);
  print(`keys         ${local.keys}`);
}

/** A sign-in that ends within this is worth a word. */
const soonMs = 300_000;

function toHeard(
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

/** A relay that is reached and refuses this machine has it signed in no more; of one that is not reached nothing is known. */
function notHeard(thrown: unknown): Heard {
  const failure = toZtnaError(thrown);
  const session = isRefusal(failure) ? null : undefined;
  return { isHeard: false, session, leftMs: 0, certificateUntilMs: undefined, failure };
}

function isRefusal({ code }: ZtnaError): boolean {
  return errorRow(code).family === 'denied';
}

function describeRelay({ isHeard, failure }: Heard): string {
  if (isHeard || !failure) return 'online';
  const { code, message } = failure;
  return `${isUnreachable(failure) ? 'offline' : 'refused'}: ${message} [${code}]`;
}

function isUnreachable({ code }: ZtnaError): boolean {
  return errorRow(code).exitCode === errorRow('ERR_RELAY_UNREACHABLE').exitCode;
}

function describeSignIn({ session, leftMs, failure }: Heard): string {
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
