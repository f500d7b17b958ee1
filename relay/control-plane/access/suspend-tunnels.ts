import { suspendableVersion, type DecisionId, type SessionId } from '../../../protocol/index.ts';
import { riskDetails, type RiskFact } from '../grant/facts.ts';
import type { Remedy } from '../grant/remedy.ts';
import { knowTunnels } from '../live/replica.ts';
import type { LiveTunnel, Suspension } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** True for a tunnel whose ends both keep it while policy holds it back. */
export function isSuspendable(tunnel: LiveTunnel): boolean {
  return tunnel.version >= suspendableVersion && ['open', 'detached'].includes(tunnel.state);
}

export interface SuspendedBy extends Suspension {
  readonly decision: DecisionId;
  /** As it was when that was decided; for the record. */
  readonly risk?: RiskFact;
}

/**
 * Holds tunnels back: an entry each in the revocation log has every enforcer close the path at once, the ends are kept for their
 * hold time, and the agent is told why and what to do. One that is held back already for the same reason is left alone.
 */
export async function suspendTunnel(
  services: Services,
  tx: Tx,
  tunnel: LiveTunnel,
  by: SuspendedBy,
): Promise<void> {
  const subject = { kind: 'tunnel', id: tunnel.id } as const;
  await services.revocations.append(tx, { action: 'suspend', subject, reason: by.reason });
  await noteSuspended(services, tx, tunnel, by);
}

/** Holds back every tunnel of a session that has ended in a way that a new sign-in mends; older tunnels end. */
export async function suspendSession(
  services: Services,
  tx: Tx,
  session: SessionId,
  by: Suspension,
): Promise<LiveTunnel[]> {
  const subject = { kind: 'session', id: session } as const;
  await services.revocations.append(tx, { action: 'suspend', subject, reason: by.reason });
  const tunnels = await knowTunnels(services, tx, 'session', session);
  for (const tunnel of tunnels.filter(isSuspendable)) {
    await noteSuspended(services, tx, tunnel, { ...by, decision: tunnel.decision });
  }
  return tunnels.filter((tunnel) => !isSuspendable(tunnel));
}

async function noteSuspended(
  services: Services,
  tx: Tx,
  tunnel: LiveTunnel,
  by: SuspendedBy,
): Promise<void> {
  const { store, clock, audit } = services;
  const detachedAtMs = tunnel.detachedAtMs ?? clock.nowMs();
  const held = await tx
    .updateTable('tunnels')
    .set({
      state: 'detached',
      detachedAtMs,
      suspendedFor: by.reason,
      suspensionFix: by.fix,
      decisionId: by.decision,
    })
    .where('id', '=', tunnel.id)
    .where('state', '!=', 'closed')
    .returning('id')
    .executeTakeFirst();
  if (!held) return;
  await audit.append(
    {
      actor: 'system',
      action: 'tunnel.suspend',
      subject: tunnel.id,
      outcome: 'ok',
      ref: by.decision,
      user: tunnel.userName,
      app: tunnel.appName,
      details: { reason: by.reason, fix: by.fix, ...(by.risk && riskDetails(by.risk)) },
    },
    tx,
  );
  store.announce(tx, 'tunnels');
  store.afterCommit(tx, () => {
    tunnel.state = 'detached';
    tunnel.detachedAtMs = detachedAtMs;
    tunnel.suspension = { reason: by.reason, fix: by.fix };
    tunnel.decision = by.decision;
    tellSuspended(services, tunnel);
  });
}

/** Tells the agent what holds its tunnel back; nothing where nothing does. */
export function tellSuspended({ peers }: Services, tunnel: LiveTunnel): void {
  const { suspension, detachedAtMs } = tunnel;
  if (!suspension || detachedAtMs === null) return;
  for (const peer of peers.devices(tunnel.device)) {
    if (peer.version < suspendableVersion) continue;
    peer.send({
      type: 'tunnel_suspended',
      tunnel: tunnel.id,
      reason: suspension.reason,
      fix: suspension.fix,
      untilMs: detachedAtMs + tunnel.holdMs,
      decision: tunnel.decision,
    });
  }
}

/** What held a tunnel back is mended: its agent asks for a path, and is decided on once more. */
export async function liftSuspension(
  services: Services,
  tx: Tx,
  tunnel: LiveTunnel,
): Promise<void> {
  const { store, peers } = services;
  await tx
    .updateTable('tunnels')
    .set({ suspendedFor: null, suspensionFix: null })
    .where('id', '=', tunnel.id)
    .execute();
  store.announce(tx, 'tunnels');
  store.afterCommit(tx, () => {
    tunnel.suspension = null;
    for (const peer of peers.devices(tunnel.device)) {
      if (peer.version >= suspendableVersion)
        peer.send({ type: 'tunnel_ready', tunnel: tunnel.id });
    }
  });
}

/** What a decision's remedy makes of a live tunnel. */
export function suspensionBy(
  { reason, fix }: Remedy,
  decision: DecisionId,
  risk: RiskFact,
): SuspendedBy {
  return { reason, fix, decision, risk };
}
