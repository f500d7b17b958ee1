import {
  grantSchema,
  maxGrantLifeMs,
  newId,
  signStatement,
  ZtnaError,
  type DecisionId,
  type DeviceId,
  type ToDevice,
  type TunnelId,
} from '../../../protocol/index.ts';
import { explainDecision, type PolicyExplanation } from '../policy/index.ts';
import { signRoster, type Route } from './choose-connector.ts';
import { toPolicyRequest, type AccessDecision } from './decide.ts';
import { compliance, remedyOf, type Remedy } from './remedy.ts';
import { disqualificationOf, riskDetails, type AppFacts, type SubjectFacts } from './facts.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

/** Grants are used at once; what is left is for slow links and clocks. */
export const grantLifeMs = Math.min(30_000, maxGrantLifeMs);

/** What `path` is answered with; `permit` says less. */
export type PathPermit = Omit<Extract<ToDevice, { type: 'path_permit' }>, 'type' | 'id'>;

/** Who asks for a path, as its control channel knows it. */
export interface Asker {
  readonly device: DeviceId;
  readonly address: string;
  /** Of the wire, on its channel. */
  readonly version: number;
}

/** What came of a request that was decided. */
export type Outcome = { readonly permit: PathPermit } | { readonly error: ZtnaError };

/** One path of a tunnel, decided and not granted yet. */
export interface NewPath {
  readonly subject: SubjectFacts;
  readonly app: AppFacts;
  readonly route: Route;
  readonly decision: AccessDecision;
  readonly decisionId: DecisionId;
  readonly tunnel: TunnelId;
  readonly generation: number;
  readonly intervalMs: number;
  readonly holdMs: number;
  readonly sequence: [number, number];
  readonly untilMs: number;
  readonly expiresAtMs: number;
  /** Where the revocation log stood before any of this was read. */
  readonly head: { readonly incarnation: number; readonly position: number };
}

/** Signs the grant for a path and says where to use it. */
export async function permitPath(services: Services, tx: Tx, path: NewPath): Promise<PathPermit> {
  const { subject, app, route, decision } = path;
  const grant = signStatement(
    'grant',
    grantSchema,
    {
      id: newId('grant'),
      version: route.version,
      user: subject.user.id,
      session: subject.session.id,
      device: subject.device.id,
      deviceKey: subject.device.noiseKey,
      app: app.app.id,
      connector: route.connector.id,
      instance: route.peer.instance,
      tunnel: path.tunnel,
      generation: path.generation,
      decision: path.decisionId,
      policy: decision.policyVersion,
      incarnation: path.head.incarnation,
      position: path.head.position,
      issuedAtMs: subject.nowMs,
      expiresAtMs: path.expiresAtMs,
      intervalMs: path.intervalMs,
      holdMs: path.holdMs,
      sequence: path.sequence,
      untilMs: path.untilMs,
      relays: route.relays.map((relay) => relay.id),
    },
    services.authority.grantKey,
  );
  const roster = await signRoster(services, tx, route.connector, app.app.id);
  return { grant, roster, relays: [...route.relays], portHint: app.app.portHint };
}

/** An app that its user could reach by signing in better is named with that remedy; no other denied one is. */
export function refusalWithRemedy(
  services: Services,
  subject: SubjectFacts,
  app: AppFacts,
  ref: string,
): ZtnaError | undefined {
  const { policy } = services;
  const explained = explainDecision(policy, toPolicyRequest(policy, subject, app));
  const remedy = remedyNow(explained, subject);
  if (!remedy?.isUsersOwn) return undefined;
  const { code, reason, message, fix } = remedy;
  return new ZtnaError(code, {
    message: `${app.app.name}: ${message}`,
    hint: fix,
    ref,
    reason,
    hop: code === 'ERR_POSTURE_UNHEALTHY' ? 'client' : 'relay',
  });
}

/** Where the subject may do nothing whatever policy says, what policy would need is no remedy. */
function remedyNow(explained: PolicyExplanation, subject: SubjectFacts): Remedy | null {
  const stop = disqualificationOf(subject);
  if (stop === undefined) return remedyOf(explained, subject);
  return stop === 'device_restricted' && explained.verdict === 'allow' ? compliance : null;
}

/** Nobody serves the app, or nobody does yet who may come back. */
export function connectorOffline(ref: string, reason = 'connector_offline'): ZtnaError {
  return new ZtnaError('ERR_CONNECTOR_OFFLINE', {
    ref,
    reason,
    hop: 'connector',
    hint: 'try again in a moment; if it stays so, tell whoever runs the connector of this app',
  });
}

/** Every relay that holds the connector is about to stop. */
export function relaysDraining(ref: string): ZtnaError {
  return new ZtnaError('ERR_RELAY_DRAINING', {
    ref,
    hop: 'relay',
    hint: 'try again in a moment: it is being restarted',
  });
}

/** The one answer for an app that is unknown and one that is denied; only the reference differs. */
export function denied(ref: string): ZtnaError {
  return new ZtnaError('ERR_POLICY_DENIED', {
    hint: 'check the name with: ztna apps',
    ref,
    hop: 'relay',
  });
}

/** Puts a decision on a path on record. */
export async function auditDecision(
  services: Services,
  tx: Tx,
  about: { readonly subject: SubjectFacts; readonly app: string; readonly ref: string },
  verdict: 'allow' | 'deny',
  reasons: readonly string[],
  details: Record<string, unknown> = {},
): Promise<void> {
  const { subject, app, ref } = about;
  const { tunnel, generation } = details;
  const isPath = tunnel !== undefined;
  if (verdict === 'deny' || isPath) {
    const kind = verdict === 'deny' ? 'denied' : generation === undefined ? 'connect' : 'resume';
    const { user, device, address } = subject;
    services.store.afterCommit(tx, () => {
      services.risk.note({ kind, user: user.id, device: device.id, app, address });
    });
  }
  await services.audit.append(
    {
      actor: `device:${subject.device.id}`,
      action: 'decision.made',
      subject: ref,
      outcome: verdict === 'allow' ? 'ok' : 'refused',
      ref,
      user: subject.user.name,
      app,
      details: {
        verdict,
        reasons,
        policy: services.policy.version,
        session: subject.session.id,
        address: subject.address,
        ...riskDetails(subject.riskOf(app)),
        ...details,
      },
    },
    tx,
  );
}
