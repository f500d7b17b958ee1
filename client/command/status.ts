import { X509Certificate } from 'node:crypto';
import { errorRow } from '../../protocol/index.ts';
import { describeProxy, isSealed, printJsonLine } from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { openLogger, print, requireIdentity, type GlobalOptions } from './context.ts';
import { describeRelay, describeSignIn, notHeard, toHeard, type Heard } from './heard-status.ts';

/** A sign-in that ends within this is worth a word. */
const soonMs = 300_000;

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
