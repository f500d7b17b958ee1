import {
  leaseBatchSchema,
  leaseLengthMs,
  signStatement,
  type ConnectorId,
  type LeaseBatch,
} from '../../../protocol/index.ts';
import { endTunnels, type Ending } from '../access/end-tunnels.ts';
import { recordDecision } from '../grant/decide.ts';
import { touchSession } from '../identity/index.ts';
import { maxLeaseEntries } from '../limits.ts';
import { Evaluation, reevaluate, type Evaluated } from './reevaluate.ts';
import { connectorLost } from './overdue.ts';
import { isOwn } from '../live/ownership.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Session } from '../store/index.ts';

/** How late a connector may report that a grant became a tunnel. */
const openReportMs = 10_000;
/** Denials that share a transaction: what is decided on takes effect before the next are decided. */
const maxCutAtOnce = 32;
/** A session in use is noted when this part of its idle time has gone by. */
const touchPart = 20;

const unused: Ending = { reason: 'lease_expired', code: 'ERR_TUNNEL_LEASE_EXPIRED' };

type Renewal = LeaseBatch['entries'][number];

/**
 * Verifies tunnels again: reads what their permission rests on, decides anew, and sends signed leases to everyone who
 * enforces them. What is denied ends through the revocation log.
 */
export async function verifyTunnels(services: Services, ids: readonly string[]): Promise<void> {
  const { store, tunnels, clock, sequence } = services;
  const renewals = new Map<ConnectorId, { tunnel: LiveTunnel; entry: Renewal }[]>();
  const lost: LiveTunnel[] = [];
  const anew: LiveTunnel[] = [];
  const changed: { tunnel: LiveTunnel; evaluated: Evaluated }[] = [];
  const sessions = new Map<string, Session>();
  const nowMs = clock.nowMs();
  const due: { tunnel: LiveTunnel; order: Renewal[1] }[] = [];
  for (const id of ids) {
    const tunnel = tunnels.get(id);
    if (!tunnel || tunnel.state === 'closed' || !isOwn(services, tunnel)) continue;
    if (isLost(services, tunnel, nowMs)) lost.push(tunnel);
    else due.push({ tunnel, order: sequence.next() }); // before the inputs are read, and their stamps
  }
  const own = due.map(({ tunnel }) => tunnel);
  const stamps = await services.knownFacts.stamps(store.db, own, nowMs);
  const known = { stamps, facts: services.knownFacts, verdicts: services.verdicts };
  const evaluation = new Evaluation(services, store.db, nowMs, { known });

  const decideAnew = async () => {
    const some = anew.splice(0);
    if (some.length === 0) return;
    await store.write((tx) => reevaluate(services, tx, some, 'policy_denied'));
  };

  for (const { tunnel, order } of due) {
    if (anew.length >= maxCutAtOnce) await decideAnew();
    const { id } = tunnel;
    const isStill = () => tunnels.get(id) === tunnel && tunnel.state !== 'closed';
    if (!isStill() || !isOwn(services, tunnel)) continue;
    const evaluated = await evaluation.evaluate(tunnel);
    if (!isStill()) continue; // it may have ended while its inputs were read
    if (evaluated?.decision.verdict !== 'allow') {
      anew.push(tunnel);
      continue;
    }
    const { decision, subject } = evaluated;
    if (tunnel.suspension) anew.push(tunnel);
    services.schedule.confirm(id, decision.endMs, clock.nowMs());
    const isSame =
      decision.inputDigest === tunnel.inputDigest &&
      decision.policyVersion === tunnel.policyVersion;
    if (isSame) tunnel.confirmations += 1;
    else changed.push({ tunnel, evaluated });
    if (tunnel.state === 'open') sessions.set(subject.session.id, subject.session);
    // A renewal reopens nothing: a detached tunnel gets a lease with its next path.
    if (tunnel.state === 'detached' || !isReachable(services, tunnel)) continue;
    const untilMs = Math.min(nowMs + leaseLengthMs(tunnel.intervalMs), decision.endMs);
    const list = renewals.get(tunnel.connector) ?? [];
    list.push({ tunnel, entry: [tunnel.id, order, untilMs] });
    renewals.set(tunnel.connector, list);
  }

  await decideAnew(); // those that stay held back for the same reason need nothing written
  if (lost.length > 0) {
    await store.write(async (tx) => {
      for (const [isUnused, some] of Map.groupBy(lost, ({ state }) => state === 'granted')) {
        await endTunnels(services, tx, some, isUnused ? unused : connectorLost);
      }
    });
  }
  // A changed decision is durable before the bytes that it allows.
  await recordChanges(services, changed, [...sessions.values()], nowMs);
  for (const [connector, list] of renewals) sendLeases(services, connector, list);
}

/** True for a grant that nobody used, and for a tunnel whose lease ran out while its connector was away. */
function isLost(services: Services, tunnel: LiveTunnel, nowMs: number): boolean {
  if (tunnel.state === 'granted') return nowMs > tunnel.grantExpiresAtMs + openReportMs;
  if (tunnel.state !== 'open' || isReachable(services, tunnel)) return false;
  // One that outlives its path is detached by now, which its connector will tell when it is back.
  const isKept = tunnel.version >= 2 && nowMs < services.absences.untilMs(tunnel.connector);
  return nowMs >= tunnel.untilMs && !isKept;
}

function isReachable(services: Services, tunnel: LiveTunnel): boolean {
  return services.peers.connectors.get(tunnel.connector)?.instance === tunnel.instance;
}

async function recordChanges(
  services: Services,
  changed: readonly { tunnel: LiveTunnel; evaluated: Evaluated }[],
  sessions: readonly Session[],
  nowMs: number,
): Promise<void> {
  const stale = sessions.filter(
    (session) => nowMs - session.lastSeenAtMs > session.idleMs / touchPart,
  );
  if (changed.length === 0 && stale.length === 0) return;
  const { store } = services;
  await store.write(async (tx) => {
    for (const session of stale) {
      await touchSession(tx, session, nowMs);
      store.afterCommit(tx, () => {
        services.knownFacts.forgetSession(session);
      });
    }
    for (const { tunnel, evaluated } of changed) {
      const { subject, app, decision } = evaluated;
      const id = await recordDecision(tx, decision, { subject, app, tunnel: tunnel.id });
      // Not before: a decision that was not written down must be new again at the next verification.
      store.afterCommit(tx, () => {
        tunnel.decision = id;
        tunnel.inputDigest = decision.inputDigest;
        tunnel.policyVersion = decision.policyVersion;
        tunnel.confirmations = 0;
      });
      await tx.updateTable('tunnels').set({ decisionId: id }).where('id', '=', tunnel.id).execute();
    }
  });
}

function sendLeases(
  services: Services,
  connector: ConnectorId,
  list: readonly { tunnel: LiveTunnel; entry: Renewal }[],
): void {
  const { peers } = services;
  const alive = list.filter(
    ({ tunnel }) =>
      isOwn(services, tunnel) && (tunnel.state === 'open' || tunnel.state === 'granted'),
  );
  for (const { tunnel, entry } of alive) tunnel.untilMs = entry[2];
  for (let at = 0; at < alive.length; at += maxLeaseEntries) {
    const entries = alive.slice(at, at + maxLeaseEntries).map(({ entry }) => entry);
    const message = signLeases(services, connector, entries);
    peers.connectors.get(connector)?.send(message);
    for (const relay of peers.relays.values()) relay.send(message);
  }
  // An agent is told of its own tunnels alone.
  for (const [device, own] of Map.groupBy(alive, ({ tunnel }) => tunnel.device)) {
    const channels = peers.devices(device);
    if (channels.length === 0) continue;
    for (let at = 0; at < own.length; at += maxLeaseEntries) {
      const entries = own.slice(at, at + maxLeaseEntries).map(({ entry }) => entry);
      const message = signLeases(services, connector, entries);
      for (const channel of channels) channel.send(message);
    }
  }
}

function signLeases(services: Services, connector: ConnectorId, entries: Renewal[]) {
  const batch = { connector, entries };
  const key = services.authority.grantKey;
  return {
    type: 'leases',
    statement: signStatement('lease', leaseBatchSchema, batch, key),
  } as const;
}
