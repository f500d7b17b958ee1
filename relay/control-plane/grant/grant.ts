import {
  grantSchema,
  leaseLengthMs,
  maxGrantLifeMs,
  newId,
  signStatement,
  wireVersion,
  ZtnaError,
  type DeviceId,
  type SessionId,
  type ToDevice,
} from '../../../protocol/index.ts';
import { verificationOf } from '../settings.ts';
import { chooseRoute, signRoster } from './choose-connector.ts';
import { decideAccess, recordDecision, recordUnknownApp, toPolicyRequest } from './decide.ts';
import { readApp, readSubject, type AppFacts, type SubjectFacts } from './facts.ts';
import { fixOf } from './remedy.ts';
import { explainDecision } from '../policy/index.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** Grants are used at once; what is left is for slow links and clocks. */
const grantLifeMs = Math.min(30_000, maxGrantLifeMs);

export type Permit = Omit<Extract<ToDevice, { type: 'permit' }>, 'type' | 'id'>;

/** Who asks for a grant, as its control channel knows it. */
export interface Asker {
  readonly device: DeviceId;
  readonly session: SessionId;
  readonly address: string;
}

/** An app that its user could reach by signing in better is named with that remedy; no other denied one is. */
function remedyFor(
  services: Services,
  subject: SubjectFacts,
  app: AppFacts,
  ref: string,
): ZtnaError | undefined {
  const { policy } = services;
  const explained = explainDecision(policy, toPolicyRequest(policy, subject, app));
  const fix = fixOf(explained);
  if (fix === null) return undefined;
  const isStepUp = explained.remedies.includes('step_up');
  return new ZtnaError(isStepUp ? 'ERR_IDENTITY_OTP_NEEDED' : 'ERR_IDENTITY_SIGN_IN_NEEDED', {
    message: isStepUp
      ? `${app.app.name} needs a second factor`
      : `${app.app.name} needs a fresh sign-in`,
    hint: fix,
    ref,
    hop: 'relay',
  });
}

type Outcome =
  { readonly permit: Permit; readonly connector: string } | { readonly error: ZtnaError };

function connectorOffline(ref: string): ZtnaError {
  return new ZtnaError('ERR_CONNECTOR_OFFLINE', {
    ref,
    hop: 'connector',
    hint: 'try again in a moment; if it stays so, tell whoever runs the connector of this app',
  });
}

/** The one answer for an app that is unknown and one that is denied; only the reference differs. */
function denied(ref: string): ZtnaError {
  return new ZtnaError('ERR_POLICY_DENIED', {
    hint: 'check the name with: ztna apps',
    ref,
    hop: 'relay',
  });
}

/**
 * Decides on a new tunnel and, if allowed, grants it: in one transaction that reads the log's position first, so
 * that a later change cannot be missed, and that makes decision and audit record durable before the answer.
 * Throws ERR_POLICY_DENIED (unknown and denied alike), ERR_CONNECTOR_OFFLINE for an allowed app that nobody serves,
 * ERR_IDENTITY_SIGN_IN_NEEDED, ERR_LIMIT_TUNNELS.
 */
export async function grantTunnel(
  services: Services,
  asker: Asker,
  appName: string,
): Promise<Permit> {
  const { store, tunnels, peers, feed } = services;
  let added = undefined as LiveTunnel | undefined;
  let outcome: Outcome;
  try {
    outcome = await store.write(async (tx) => {
      const decided = await decideInside(services, tx, asker, appName);
      added = decided.tunnel;
      return decided.outcome;
    });
  } catch (error) {
    // The index must name it before the commit, so that no later entry misses it; without a commit it is none.
    if (added) {
      tunnels.delete(added.id);
      services.schedule.delete(added.id);
    }
    throw error;
  }
  if ('error' in outcome) throw outcome.error;
  // The connector accepts no grant ahead of what it knows to be complete.
  const connector = peers.connectors.get(outcome.connector);
  if (connector && connector.toldTo < feed.head) feed.tellHead(connector);
  return outcome.permit;
}

async function decideInside(
  services: Services,
  tx: Tx,
  asker: Asker,
  appName: string,
): Promise<{ readonly outcome: Outcome; readonly tunnel?: LiveTunnel }> {
  const { clock, policy, revocations, settings } = services;
  const sequence = services.sequence.next();
  const head = await revocations.head(tx);
  const nowMs = clock.nowMs();
  const subject = await readSubject(tx, asker, { address: asker.address, nowMs });
  if (!subject) return { outcome: { error: new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED') } };

  const app = await readApp(tx, { name: appName });
  if (!app) {
    const ref = await recordUnknownApp(tx, subject, appName, policy.version);
    await auditDecision(services, tx, subject, appName, 'deny', ref, ['app_unknown']);
    return { outcome: { error: denied(ref) } };
  }
  const { intervalMs, holdMs } = verificationOf(settings, appName);
  const lengthMs = leaseLengthMs(intervalMs);
  const decision = decideAccess(policy, subject, app, lengthMs);
  if (decision.reasons[0] === 'session_ended' && decision.verdict === 'deny') {
    return { outcome: { error: new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED') } };
  }
  if (decision.verdict === 'deny') {
    const ref = await recordDecision(tx, decision, { subject, app, tunnel: null });
    const why = [...decision.reasons, ...decision.errors];
    await auditDecision(services, tx, subject, appName, 'deny', ref, why);
    return { outcome: { error: remedyFor(services, subject, app, ref) ?? denied(ref) } };
  }

  const refusal = checkLimits(services, subject);
  const route = refusal ? undefined : await chooseRoute(services, tx, app.app);
  if (!route) {
    const ref = await recordDecision(tx, decision, { subject, app, tunnel: null });
    const error = refusal ?? connectorOffline(ref);
    await auditDecision(services, tx, subject, appName, 'allow', ref, [error.code]);
    return { outcome: { error } };
  }

  const tunnelId = newId('tunnel');
  const decisionId = await recordDecision(tx, decision, { subject, app, tunnel: tunnelId });
  const untilMs = Math.min(nowMs + lengthMs, decision.endMs);
  const expiresAtMs = nowMs + grantLifeMs;
  const grant = signStatement(
    'grant',
    grantSchema,
    {
      id: newId('grant'),
      version: wireVersion,
      user: subject.user.id,
      session: subject.session.id,
      device: subject.device.id,
      deviceKey: subject.device.noiseKey,
      app: app.app.id,
      connector: route.connector.id,
      instance: route.peer.instance,
      tunnel: tunnelId,
      generation: 1,
      decision: decisionId,
      policy: decision.policyVersion,
      incarnation: head.incarnation,
      position: head.position,
      issuedAtMs: nowMs,
      expiresAtMs,
      intervalMs,
      holdMs,
      sequence,
      untilMs,
      relays: route.relays.map((relay) => relay.id),
    },
    services.authority.grantKey,
  );
  const roster = await signRoster(services, tx, route.connector, app.app.id);
  await tx
    .insertInto('tunnels')
    .values({
      id: tunnelId,
      userId: subject.user.id,
      sessionId: subject.session.id,
      deviceId: subject.device.id,
      appId: app.app.id,
      connectorId: route.connector.id,
      instance: route.peer.instance,
      relayId: null,
      decisionId,
      generation: 1,
      fencing: sequence[0],
      state: 'granted',
      grantExpiresAtMs: expiresAtMs,
      untilMs,
      openedAtMs: null,
      closedAtMs: null,
      closeReason: null,
      bytesUp: 0,
      bytesDown: 0,
      createdAtMs: nowMs,
    })
    .execute();
  const tunnel: LiveTunnel = {
    id: tunnelId,
    user: subject.user.id,
    session: subject.session.id,
    device: subject.device.id,
    app: app.app.id,
    appName,
    userName: subject.user.name,
    connector: route.connector.id,
    instance: route.peer.instance,
    intervalMs,
    grantExpiresAtMs: expiresAtMs,
    address: asker.address,
    decision: decisionId,
    state: 'granted',
    untilMs,
    inputDigest: decision.inputDigest,
    policyVersion: decision.policyVersion,
    confirmations: 0,
  };
  services.tunnels.add(tunnel);
  services.schedule.set(tunnelId, intervalMs, decision.endMs, nowMs);
  await auditDecision(services, tx, subject, appName, 'allow', decisionId, decision.reasons, {
    tunnel: tunnelId,
    connector: route.connector.id,
    untilMs,
  });
  return {
    outcome: {
      permit: { grant, roster, relays: [...route.relays], portHint: app.app.portHint },
      connector: route.connector.id,
    },
    tunnel,
  };
}

function checkLimits(services: Services, subject: SubjectFacts): ZtnaError | undefined {
  const { tunnels, settings } = services;
  const { tunnelsPerDevice, tunnelsPerUser } = settings.limits;
  if (tunnels.about('device', subject.device.id).length >= tunnelsPerDevice) {
    return tooMany('device', tunnelsPerDevice);
  }
  if (tunnels.about('user', subject.user.id).length >= tunnelsPerUser) {
    return tooMany('user', tunnelsPerUser);
  }
  return undefined;
}

function tooMany(whose: 'device' | 'user', limit: number): ZtnaError {
  return new ZtnaError('ERR_LIMIT_TUNNELS', {
    message: `this ${whose} has ${String(limit)} tunnels, as many as it may`,
    hint: 'end a `ztna connect` that is not used, or wait a minute for those that were just left',
    hop: 'relay',
    reason: `${whose}_tunnels_full`,
  });
}

async function auditDecision(
  services: Services,
  tx: Tx,
  subject: SubjectFacts,
  appName: string,
  verdict: 'allow' | 'deny',
  ref: string,
  reasons: readonly string[],
  details: Record<string, unknown> = {},
): Promise<void> {
  await services.audit.append(
    {
      actor: `device:${subject.device.id}`,
      action: 'decision.made',
      subject: ref,
      outcome: verdict === 'allow' ? 'ok' : 'refused',
      ref,
      user: subject.user.name,
      app: appName,
      details: {
        verdict,
        reasons,
        policy: services.policy.version,
        session: subject.session.id,
        address: subject.address,
        ...details,
      },
    },
    tx,
  );
}
