import {
  leaseLengthMs,
  newId,
  oldestWireVersion,
  ZtnaError,
  type RelayId,
  type SessionId,
} from '../../../protocol/index.ts';
import { refuseRemoved } from '../live/ownership.ts';
import { refreshPolicy } from '../live/refresh.ts';
import { verificationOf } from '../settings.ts';
import { chooseRoute } from './choose-connector.ts';
import { decideAccess, recordDecision, recordUnknownApp } from './decide.ts';
import { readApp, readSubject, type SubjectFacts } from './facts.ts';
import {
  auditDecision,
  connectorOffline,
  denied,
  grantLifeMs,
  permitPath,
  relaysDraining,
  refusalWithRemedy,
  type Asker,
  type NewPath,
  type Outcome,
  type PathPermit,
} from './permit.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** What is asked for: a new tunnel to the app of that name. */
export interface TunnelRequest {
  readonly session: SessionId;
  readonly app: string;
  /** Relays to name only if there is no other. */
  readonly avoid: readonly RelayId[];
}

/**
 * Decides on a new tunnel and, if allowed, grants it: in one transaction that reads the log's position first, so
 * that a later change cannot be missed, and that makes decision and audit record durable before the answer.
 * Throws ERR_POLICY_DENIED (unknown and denied alike), ERR_CONNECTOR_OFFLINE for an allowed app that nobody serves,
 * ERR_RELAY_DRAINING, ERR_IDENTITY_SIGN_IN_NEEDED, ERR_LIMIT_TUNNELS.
 */
export async function grantTunnel(
  services: Services,
  asker: Asker,
  request: TunnelRequest,
): Promise<PathPermit> {
  const { outcome, tunnel } = await services.store.write(
    (tx) => decideInside(services, tx, asker, request),
    { apart: asker.device },
  );
  if ('error' in outcome) throw outcome.error;
  if (tunnel) tellConnector(services, tunnel);
  return outcome.permit;
}

/** The connector accepts no grant ahead of what it knows to be complete. */
export function tellConnector({ peers, feed }: Services, tunnel: LiveTunnel): void {
  const connector = peers.connectors.get(tunnel.connector);
  if (connector && connector.toldTo < feed.head) feed.tellHead(connector);
  void feed.wake(); // its grant may be ahead of what was told here
}

interface Decided {
  readonly outcome: Outcome;
  readonly tunnel?: LiveTunnel;
}

async function decideInside(
  services: Services,
  tx: Tx,
  asker: Asker,
  request: TunnelRequest,
): Promise<Decided> {
  const { clock, revocations, settings, store } = services;
  // Whoever changes what permission rests on waits for us, and then sees this tunnel; or we wait, and see the change.
  await store.lockShared(tx, 'revocation');
  await refuseRemoved(services, tx);
  const policy = await refreshPolicy(services, tx);
  const sequence = services.sequence.next();
  const head = await revocations.head(tx);
  const nowMs = clock.nowMs();
  const ids = { device: asker.device, session: request.session };
  const subject = await readSubject(services, tx, ids, { address: asker.address, nowMs });
  if (!subject) return { outcome: { error: new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED') } };

  const appName = request.app;
  const app = await readApp(tx, { name: appName });
  if (!app) {
    const ref = await recordUnknownApp(tx, subject, appName, policy.version);
    await auditDecision(services, tx, { subject, app: appName, ref }, 'deny', ['app_unknown']);
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
    await auditDecision(services, tx, { subject, app: appName, ref }, 'deny', why);
    return { outcome: { error: refusalWithRemedy(services, subject, app, ref) ?? denied(ref) } };
  }

  const refusal = await checkLimits(services, tx, subject);
  const wish = {
    version: asker.version,
    leastVersion: oldestWireVersion,
    avoid: request.avoid,
  };
  const route = refusal ? 'offline' : await chooseRoute(services, tx, app.app, wish);
  if (typeof route === 'string') {
    const ref = await recordDecision(tx, decision, { subject, app, tunnel: null });
    const none = route === 'draining' ? relaysDraining(ref) : connectorOffline(ref);
    const error = refusal ?? none;
    await auditDecision(services, tx, { subject, app: appName, ref }, 'allow', [error.code]);
    return { outcome: { error } };
  }

  const tunnelId = newId('tunnel');
  const decisionId = await recordDecision(tx, decision, { subject, app, tunnel: tunnelId });
  const path: NewPath = {
    subject,
    app,
    route,
    decision,
    decisionId,
    tunnel: tunnelId,
    generation: 1,
    intervalMs,
    holdMs,
    sequence,
    untilMs: Math.min(nowMs + lengthMs, decision.endMs),
    expiresAtMs: nowMs + grantLifeMs,
    head,
  };
  const permit = await permitPath(services, tx, path);
  const owner = services.self.id;
  await insertRow(tx, path, owner);
  const tunnel = toLiveTunnel(path, owner);
  store.announce(tx, 'tunnels');
  store.afterCommit(tx, () => {
    services.tunnels.add(tunnel);
    services.schedule.set(tunnelId, intervalMs, decision.endMs, nowMs, asker.device);
  });
  await auditDecision(
    services,
    tx,
    { subject, app: appName, ref: decisionId },
    'allow',
    decision.reasons,
    { tunnel: tunnelId, connector: route.connector.id, untilMs: path.untilMs },
  );
  return { outcome: { permit }, tunnel };
}

async function insertRow(tx: Tx, path: NewPath, owner: string): Promise<void> {
  const { subject, app, route } = path;
  await tx
    .insertInto('tunnels')
    .values({
      id: path.tunnel,
      userId: subject.user.id,
      sessionId: subject.session.id,
      deviceId: subject.device.id,
      appId: app.app.id,
      connectorId: route.connector.id,
      instance: route.peer.instance,
      relayId: onlyRelay(path),
      relaysJson: JSON.stringify(relaysOf(path)),
      decisionId: path.decisionId,
      version: route.version,
      generation: path.generation,
      fencing: path.sequence[0],
      owner,
      state: 'granted',
      holdMs: path.holdMs,
      detachedAtMs: null,
      suspendedFor: null,
      suspensionFix: null,
      grantExpiresAtMs: path.expiresAtMs,
      untilMs: path.untilMs,
      openedAtMs: null,
      closedAtMs: null,
      closeReason: null,
      closeCode: null,
      bytesUp: 0,
      bytesDown: 0,
      createdAtMs: subject.nowMs,
    })
    .execute();
}

/** The relays by which a path may go. */
export function relaysOf({ route }: NewPath): RelayId[] {
  return route.relays.map(({ id }) => id);
}

/** The relay that a path takes, where its grant leaves no choice. */
export function onlyRelay({ route }: NewPath): RelayId | null {
  const [first, second] = route.relays;
  return first && !second ? first.id : null;
}

function toLiveTunnel(path: NewPath, owner: string): LiveTunnel {
  const { subject, app, route, decision } = path;
  return {
    id: path.tunnel,
    user: subject.user.id,
    session: subject.session.id,
    device: subject.device.id,
    app: app.app.id,
    appName: app.app.name,
    userName: subject.user.name,
    connector: route.connector.id,
    instance: route.peer.instance,
    owner,
    intervalMs: path.intervalMs,
    version: route.version,
    holdMs: path.holdMs,
    generation: path.generation,
    pathGeneration: 0,
    relay: onlyRelay(path),
    keptRelay: onlyRelay(path),
    relays: relaysOf(path),
    grantExpiresAtMs: path.expiresAtMs,
    address: subject.address,
    decision: path.decisionId,
    state: 'granted',
    detachedAtMs: null,
    suspension: null,
    isAwaited: false,
    untilMs: path.untilMs,
    bytes: { up: 0, down: 0, atMs: subject.nowMs },
    inputDigest: decision.inputDigest,
    policyVersion: decision.policyVersion,
    confirmations: 0,
  };
}

async function checkLimits(
  { store, settings }: Services,
  tx: Tx,
  { user, device }: SubjectFacts,
): Promise<ZtnaError | undefined> {
  const { tunnelsPerDevice, tunnelsPerUser } = settings.limits;
  await store.lockOrder(tx, `user:${user.id}`); // two control planes must not both grant the last one
  const count = async (column: 'deviceId' | 'userId', id: string) => {
    const row = await tx
      .selectFrom('tunnels')
      .select((eb) => eb.fn.countAll<number>().as('count'))
      .where(column, '=', id as never)
      .where('state', 'in', ['granted', 'open', 'detached'])
      .executeTakeFirstOrThrow();
    return row.count;
  };
  if ((await count('deviceId', device.id)) >= tunnelsPerDevice) {
    return tooMany('device', tunnelsPerDevice);
  }
  return (await count('userId', user.id)) >= tunnelsPerUser
    ? tooMany('user', tunnelsPerUser)
    : undefined;
}

function tooMany(whose: 'device' | 'user', limit: number): ZtnaError {
  return new ZtnaError('ERR_LIMIT_TUNNELS', {
    message: `this ${whose} has ${String(limit)} tunnels, as many as it may`,
    hint: 'end a `ztna connect` that is not used, or wait a minute for those that were just left',
    hop: 'relay',
    reason: `${whose}_tunnels_full`,
  });
}
