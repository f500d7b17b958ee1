import { X509Certificate } from 'node:crypto';
import { errorRow, toZtnaError, type SessionFacts } from '../../protocol/index.ts';
import { describeProxy, isSealed, printJsonLine } from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { openLogger, print, requireIdentity, type GlobalOptions } from './context.ts';

/**
 * Says who this machine is and whether it is signed in, as the relay says it at this moment.
 * Ends with 0 when signed in, 4 when not, 3 when the relay could not be asked.
 */
export async function runStatus(options: GlobalOptions): Promise<void> {
  const { profile, identity } = await requireIdentity(options);
  const certificateUntilMs = new X509Certificate(identity.certificatePem).validToDate.getTime();
  const local = {
    profile: profile.name,
    device: identity.id,
    relay: identity.relayUrl,
    proxy: describeProxy(identity.relayUrl),
    enrolledFor: identity.profile['user'] ?? null,
    certificateUntil: toIsoTime(certificateUntilMs),
    keys: (await isSealed(profile.dir)) ? 'sealed' : 'unsealed',
  };
  let session: SessionFacts | null = null;
  let failure: { code: string; message: string } | null = null;
  try {
    const agent = await Agent.start({ profile, identity, logger: openLogger() });
    try {
      const answer = await agent.request({ type: 'status' });
      session = answer.session;
      local.certificateUntil = toIsoTime(answer.device.certificateUntilMs);
    } finally {
      await agent.stop();
    }
  } catch (thrown) {
    const error = toZtnaError(thrown);
    failure = { code: error.code, message: error.message };
    process.exitCode = errorRow(error.code).exitCode;
  }
  const isRefused =
    failure !== null && process.exitCode !== errorRow('ERR_RELAY_UNREACHABLE').exitCode;
  if (!failure && !session) process.exitCode = errorRow('ERR_IDENTITY_SIGN_IN_NEEDED').exitCode;
  if (options.json) {
    printJsonLine({
      ...local,
      isOnline: failure === null,
      session: session && {
        id: session.session,
        user: session.user,
        methods: session.methods,
        signedInAt: toIsoTime(session.signedInAtMs),
        until: toIsoTime(session.untilMs),
      },
      error: failure,
    });
    return;
  }
  print(
    `relay        ${local.relay}  ${failure ? `${isRefused ? 'refused' : 'offline'}: ${failure.message} [${failure.code}]` : 'online'}`,
  );
  if (local.proxy !== null) print(`proxy        ${local.proxy}`);
  print(`device       ${local.device}  (profile ${local.profile})`);
  if (session) {
    const methods = session.methods.join(', ');
    print(`signed in    ${session.user} by ${methods}, until ${toIsoTime(session.untilMs)}`);
  } else {
    print(`signed in    ${failure ? 'unknown while offline' : 'no; run: ztna login'}`);
  }
  print(`certificate  until ${local.certificateUntil}`);
  print(`keys         ${local.keys}`);
}
