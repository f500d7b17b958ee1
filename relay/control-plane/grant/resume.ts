import { leaseLengthMs, ZtnaError, type RelayId, type TunnelId } from '../../../protocol/index.ts';
import { endTunnels, flushConfirmations, revokeTunnels } from '../access/end-tunnels.ts';
import { isSuspendable, suspendTunnel, suspensionBy } from '../access/suspend-tunnels.ts';
import { findLiveSession } from '../identity/index.ts';
import { claimTunnels, isHeldElsewhere, refuseRemoved } from '../live/ownership.ts';
import { refreshPolicy } from '../live/refresh.ts';
import { verificationOf } from '../settings.ts';
import { remedyFor } from '../verification/reevaluate.ts';
import { routeTo } from './choose-connector.ts';
import { decideAccess, recordDecision } from './decide.ts';
import { readApp, readSubject } from './facts.ts';
import { relaysOf, tellConnector } from './grant.ts';
import {
  auditDecision,
  connectorOffline,
  grantLifeMs,
  permitPath,
  relaysDraining,
  type Asker,
  type NewPath,
  type Outcome,
  type PathPermit,
} from './permit.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** The first version of the wire whose tunnels outlive their paths. */
export const resumableVersion = 2;

/** What is asked for: another path for this tunnel. */
export interface ResumeRequest {
  readonly tunnel: TunnelId;
  /** Its name, which must be that of the tunnel's app. */
  readonly app: string;
  /** Relays to name only if there is no other. */
  readonly avoid: readonly RelayId[];
}

/**
 * Decides anew on a tunnel that is there and, if it is still allowed, grants it a path of the next generation, in one
 * transaction that reads the log's position first. The tunnel stays as it is until its connector reports the resume.
 * One that policy no longer allows ends. Throws ERR_TUNNEL_REVOKED, ERR_TUNNEL_RESUME_REFUSED (there is no such tunnel
 * of this device, or its connector is gone), ERR_CONNECTOR_OFFLINE and ERR_RELAY_DRAINING (it may be had in a
 * moment), ERR_IDENTITY_SIGN_IN_NEEDED.
 */
export async function resumeTunnel(
  services: Services,
  asker: Asker,
  request: ResumeRequest,
): Promise<PathPermit> {
  await claimTunnels(services, [request.tunnel], { device: asker.device });
  refuseWhileAway(services, asker, request);
  const outcome = await services.store.write((tx) => decideInside(services, tx, asker, request), {
    apart: request.tunnel,
  });
  if ('error' in outcome) {
    if (outcome.error.code === 'ERR_TUNNEL_RESUME_REFUSED') {
      await noteRefused(services, asker, request, outcome.error);
    }
    throw outcome.error;
  }
  const tunnel = services.tunnels.get(request.tunnel);
  if (tunnel) tellConnector(services, tunnel);
  return outcome.permit;
}

async function noteRefused(
  services: Services,
  asker: Asker,
  request: ResumeRequest,
  { code, reason = null }: { readonly code: string; readonly reason?: string | undefined | null },
): Promise<void> {
  await services.refusals.record(asker.address, {
    actor: `device:${asker.device}`,
    action: 'tunnel.resume',
    subject: request.tunnel,
    app: request.app,
    details: { code, reason, address: asker.address },
  });
}

async function decideInside(
  services: Services,
  tx: Tx,
  asker: Asker,
  request: ResumeRequest,
): Promise<Outcome> {
  const { clock, revocations, settings, store } = services;
  await store.lockShared(tx, 'revocation');
  await refuseRemoved(services, tx);
  const policy = await refreshPolicy(services, tx);
  const sequence = services.sequence.next();
  const head = await revocations.head(tx);
  const nowMs = clock.nowMs();
  const found = await findTunnel(services, tx, asker, request);
  if ('error' in found) return found;
  const { tunnel } = found;
  const session = await findLiveSession(tx, asker.device, nowMs);
  const subject =
    session &&
    (await readSubject(
      services,
      tx,
      { device: asker.device, session: session.id },
      { address: asker.address, nowMs },
    ));
  const app = await readApp(tx, { id: tunnel.app });
  if (!subject && tunnel.suspension && isSuspendable(tunnel)) {
    const { reason, fix } = tunnel.suspension;
    return { error: suspended(reason, fix, tunnel.decision) };
  }
  if (!subject || !app) {
    const hint = 'run: ztna login';
    return { error: new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { hint, hop: 'client' }) };
  }
  if (subject.user.id !== tunnel.user) return refused('device_other');
  if (app.app.name !== request.app) return refused('app_other');

  const peer = await connectorOf(services, tx, tunnel);
  if ('error' in peer) return peer;
  const wish = { version: asker.version, leastVersion: resumableVersion, avoid: request.avoid };
  const route = await routeTo(services, tx, peer.connector, wish);
  if (route === 'draining') return { error: relaysDraining(tunnel.decision) };
  if (route === 'offline') return connectorAway(tunnel);

  const { intervalMs } = verificationOf(settings, app.app.name);
  const lengthMs = leaseLengthMs(intervalMs);
  const decision = decideAccess(policy, subject, app, lengthMs);
  const decisionId = await recordDecision(tx, decision, { subject, app, tunnel: tunnel.id });
  const about = { subject, app: app.app.name, ref: decisionId };
  if (decision.verdict === 'deny') {
    const why = [...decision.reasons, ...decision.errors];
    await auditDecision(services, tx, about, 'deny', why, { tunnel: tunnel.id });
    const remedy = isSuspendable(tunnel)
      ? remedyFor(policy, { subject, app, decision }, nowMs)
      : null;
    if (remedy) {
      const held = tunnel.suspension;
      if (remedy.reason !== held?.reason) {
        const by = suspensionBy(remedy, decisionId, subject.riskOf(app.app.name));
        await suspendTunnel(services, tx, tunnel, by);
      }
      // How long a silence lasts by now is no news.
      const isSilence = remedy.reason === 'posture_stale' && held?.reason === remedy.reason;
      return { error: suspended(remedy.reason, isSilence ? held.fix : remedy.fix, decisionId) };
    }
    const ending = { reason: 'policy_denied', code: 'ERR_TUNNEL_REVOKED' } as const;
    await revokeTunnels(services, tx, [tunnel], { ...ending, decision: decisionId });
    return { error: new ZtnaError('ERR_TUNNEL_REVOKED', { ref: decisionId, hop: 'relay' }) };
  }

  const path: NewPath = {
    subject,
    app,
    route: { ...route, version: tunnel.version },
    decision,
    decisionId,
    tunnel: tunnel.id,
    generation: found.generation + 1,
    intervalMs,
    holdMs: tunnel.holdMs,
    sequence,
    untilMs: Math.min(nowMs + lengthMs, decision.endMs),
    expiresAtMs: nowMs + grantLifeMs,
    head,
  };
  const permit = await permitPath(services, tx, path);
  await flushConfirmations(store, tx, tunnel, nowMs);
  await tx
    .updateTable('tunnels')
    .set({
      generation: path.generation,
      relaysJson: JSON.stringify(relaysOf(path)),
      sessionId: subject.session.id,
      decisionId,
      grantExpiresAtMs: path.expiresAtMs,
      fencing: sequence[0],
      suspendedFor: null,
      suspensionFix: null,
    })
    .where('id', '=', tunnel.id)
    .execute();
  await auditDecision(services, tx, about, 'allow', decision.reasons, {
    tunnel: tunnel.id,
    generation: path.generation,
    connector: route.connector.id,
    untilMs: path.untilMs,
  });
  store.announce(tx, 'tunnels');
  store.afterCommit(tx, () => {
    takePath(services, tunnel, path);
  });
  return { permit };
}

type Refusal = { readonly error: ZtnaError };

/** Not now: what it lacks is its user's to mend, and both ends keep the tunnel meanwhile. */
function suspended(reason: string, fix: string, ref: string): ZtnaError {
  return new ZtnaError('ERR_TUNNEL_SUSPENDED', { reason, hint: fix, ref, hop: 'relay' });
}

function refused(reason: string): Refusal {
  return { error: new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason, hop: 'relay' }) };
}

/** It may be had in a moment. */
function connectorAway(tunnel: LiveTunnel): Refusal {
  return { error: connectorOffline(tunnel.decision, 'connector_away') };
}

/** The tunnel, if it is this device's and not over. Whose it is otherwise is nobody's business. */
async function findTunnel(
  services: Services,
  tx: Tx,
  asker: Asker,
  request: ResumeRequest,
): Promise<{ readonly tunnel: LiveTunnel; readonly generation: number } | Refusal> {
  const row = await tx
    .selectFrom('tunnels')
    .select(['deviceId', 'state', 'version', 'generation', 'closeCode', 'decisionId'])
    .where('id', '=', request.tunnel)
    .executeTakeFirst();
  if (row?.deviceId !== asker.device) return refused('tunnel_unknown');
  if (row.state === 'closed' && row.closeCode === 'ERR_TUNNEL_REVOKED') {
    const ref = row.decisionId;
    return { error: new ZtnaError('ERR_TUNNEL_REVOKED', { ref, hop: 'relay' }) };
  }
  const tunnel = services.tunnels.get(request.tunnel);
  const isThere = tunnel && tunnel.state !== 'closed' && row.state !== 'closed';
  if (!isThere || row.version < resumableVersion) return refused('tunnel_unknown');
  return { tunnel, generation: row.generation };
}

/**
 * A crowd that lost its relay is back before its connector: telling it so must not cost a transaction each. Throws
 * ERR_CONNECTOR_OFFLINE.
 */
function refuseWhileAway(services: Services, asker: Asker, request: ResumeRequest): void {
  const tunnel = services.tunnels.get(request.tunnel);
  if (tunnel?.device !== asker.device || tunnel.state === 'closed') return;
  const { peers, absences, clock } = services;
  const isAwaited = clock.nowMs() < absences.untilMs(tunnel.connector);
  if (peers.connectors.has(tunnel.connector) || !isAwaited) return;
  tunnel.isAwaited = true;
  throw connectorAway(tunnel).error;
}

/** The tunnel's very connector process. One that has been away for long, or was replaced, takes its tunnels with it. */
async function connectorOf(services: Services, tx: Tx, tunnel: LiveTunnel) {
  const { peers, absences, clock } = services;
  const connector = peers.connectors.get(tunnel.connector);
  if (connector?.instance === tunnel.instance) return { connector };
  const isAwaited = peers.relays.size === 0 || clock.nowMs() < absences.untilMs(tunnel.connector);
  if (!connector && isAwaited) {
    tunnel.isAwaited = true;
    return connectorAway(tunnel);
  }
  if (await isHeldElsewhere(services, tx, tunnel)) return connectorAway(tunnel);
  const reason = connector ? 'connector_restarted' : 'connector_lost';
  await endTunnels(services, tx, [tunnel], { reason, code: 'ERR_CONNECTOR_OFFLINE' });
  return refused('connector_gone');
}

/** What is durable now holds for the tunnel; which path carries it is its connector's to say. */
function takePath(services: Services, tunnel: LiveTunnel, path: NewPath): void {
  const { subject, decision } = path;
  tunnel.generation = path.generation;
  tunnel.relays = relaysOf(path);
  tunnel.grantExpiresAtMs = path.expiresAtMs;
  tunnel.address = subject.address;
  tunnel.decision = path.decisionId;
  tunnel.inputDigest = decision.inputDigest;
  tunnel.policyVersion = decision.policyVersion;
  tunnel.isAwaited = false;
  tunnel.suspension = null;
  tunnel.untilMs = Math.max(tunnel.untilMs, path.untilMs);
  services.tunnels.moveSession(tunnel, subject.session.id);
  services.schedule.set(tunnel.id, path.intervalMs, decision.endMs, subject.nowMs, tunnel.device);
}
