import {
  ZtnaError,
  type DecisionId,
  type ErrorCode,
  type Subject,
} from '../../../protocol/index.ts';
import { knowTunnels } from '../live/replica.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Store, Tx } from '../store/index.ts';

/** Why something ends: a word for logs and close messages, and the code that goes with it. */
export interface Ending {
  readonly reason: string;
  readonly code: ErrorCode;
  /** The decision that ends them, where it is not the one that allowed them. */
  readonly decision?: DecisionId;
}

/** Ends permission: one entry in the revocation log, pushed to everyone concerned as soon as `tx` is durable. */
export async function revokeSubject(
  services: Services,
  tx: Tx,
  subject: Subject,
  reason: string,
): Promise<number> {
  await services.revocations.append(tx, { action: 'revoke', subject, reason });
  const tunnels = await knowTunnels(services, tx, subject.kind, subject.id);
  await endTunnels(services, tx, tunnels, { reason, code: 'ERR_TUNNEL_REVOKED' });
  return tunnels.length;
}

/** Ends tunnels of which an end may still be kept somewhere: an entry each tells whoever has it at once. */
export async function revokeTunnels(
  services: Services,
  tx: Tx,
  tunnels: readonly LiveTunnel[],
  ending: Ending,
): Promise<void> {
  for (const { id } of tunnels) {
    const subject = { kind: 'tunnel', id } as const;
    await services.revocations.append(tx, { action: 'revoke', subject, reason: ending.reason });
  }
  await endTunnels(services, tx, tunnels, ending);
}

/**
 * Closes tunnels in `tx`: their rows, the audit log and, once durable, this process's index and the agents that
 * hold them. The enforcers learn of it from the revocation log, or end the tunnel themselves at the end of its lease.
 */
export async function endTunnels(
  services: Services,
  tx: Tx,
  tunnels: readonly LiveTunnel[],
  ending: Ending,
  byteCounts: { readonly bytesUp: number; readonly bytesDown: number } | null = null,
): Promise<void> {
  const { store, clock, audit } = services;
  const nowMs = clock.nowMs();
  for (const tunnel of tunnels) {
    const closed = await tx
      .updateTable('tunnels')
      .set({
        state: 'closed',
        closedAtMs: nowMs,
        closeReason: ending.reason,
        closeCode: ending.code,
        detachedAtMs: null,
        relayId: tunnel.relay,
        untilMs: Math.min(tunnel.untilMs, nowMs),
        ...(byteCounts ?? {}),
      })
      .where('id', '=', tunnel.id)
      .where('state', '!=', 'closed')
      .returning('id')
      .executeTakeFirst();
    if (!closed) continue;
    await flushConfirmations(store, tx, tunnel, nowMs);
    await audit.append(
      {
        actor: 'system',
        action: 'tunnel.end',
        subject: tunnel.id,
        outcome: 'ok',
        ref: ending.decision ?? tunnel.decision,
        user: tunnel.userName,
        app: tunnel.appName,
        details: { reason: ending.reason, code: ending.code, ...(byteCounts ?? {}) },
      },
      tx,
    );
  }
  if (tunnels.length === 0) return;
  store.afterCommit(tx, () => {
    for (const tunnel of tunnels) forget(services, tunnel, ending);
  });
}

/** Cuts off who was revoked, once it was told why. */
export function closeWhenTold(
  { feed }: Pick<Services, 'feed'>,
  find: () => Closable | readonly Closable[] | undefined,
): void {
  void feed.wake().then(() => {
    for (const peer of [find() ?? []].flat()) peer.close(new ZtnaError('ERR_IDENTITY_REVOKED'));
  });
}

interface Closable {
  close(error: unknown): void;
}

/** Writes down how often a decision was confirmed since it was written last. */
export async function flushConfirmations(
  store: Store,
  tx: Tx,
  tunnel: LiveTunnel,
  nowMs: number,
): Promise<void> {
  const count = tunnel.confirmations;
  if (count === 0) return;
  store.afterCommit(tx, () => {
    tunnel.confirmations = Math.max(0, tunnel.confirmations - count);
  });
  await tx
    .updateTable('decisions')
    .set((eb) => ({
      confirmations: eb('confirmations', '+', count),
      lastConfirmedAtMs: nowMs,
    }))
    .where('id', '=', tunnel.decision)
    .execute();
}

/** What is closed for good: no more verification, and its agent is told. */
export function forget(
  services: Services,
  tunnel: LiveTunnel,
  ending: Pick<Ending, 'reason' | 'code'>,
): void {
  tunnel.state = 'closed';
  services.schedule.delete(tunnel.id);
  for (const device of services.peers.devices(tunnel.device)) {
    device.send({
      type: 'tunnel_ended',
      tunnel: tunnel.id,
      code: ending.code,
      reason: ending.reason,
    });
  }
  // A grant that could still be used keeps its place: later entries about it must reach its connector.
  if (tunnel.grantExpiresAtMs <= services.clock.nowMs()) services.tunnels.delete(tunnel.id);
}
