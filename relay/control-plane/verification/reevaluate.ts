import { setImmediate } from 'node:timers/promises';
import { leaseLengthMs } from '../../../protocol/index.ts';
import { revokeTunnels } from '../access/end-tunnels.ts';
import {
  isSuspendable,
  liftSuspension,
  suspendTunnel,
  suspensionBy,
} from '../access/suspend-tunnels.ts';
import {
  decideAccess,
  recordDecision,
  toPolicyRequest,
  type AccessDecision,
} from '../grant/decide.ts';
import {
  readApp,
  readSubject,
  subjectAt,
  type AppFacts,
  type StoredSubject,
  type SubjectFacts,
} from '../grant/facts.ts';
import { compliance, remedyOf, type Remedy } from '../grant/remedy.ts';
import { findLiveSession, sessionEndMs } from '../identity/index.ts';
import { explainDecision, type PolicyEngine, type PolicyExplanation } from '../policy/index.ts';
import { isOwn } from '../live/ownership.ts';
import { refreshPolicy } from '../live/refresh.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { FactStamps, Reader, Tx } from '../store/index.ts';
import type { KnownFacts } from './known-facts.ts';
import type { Verdicts } from './verdicts.ts';

/** A tunnel's decision as of now; null when user, device, session or app no longer exist. */
export interface Evaluated {
  readonly subject: SubjectFacts;
  readonly app: AppFacts;
  readonly decision: AccessDecision;
}

/** What an evaluation need not find out again: stamps that were read before anything else, and what is known. */
export interface Known {
  readonly stamps: FactStamps;
  readonly facts: KnownFacts;
  readonly verdicts: Verdicts;
}

/** Decides tunnels anew; facts that several of them share are read once. */
export class Evaluation {
  readonly #services: Services;
  readonly #db: Reader | Tx;
  readonly #nowMs: number;
  readonly #policy: PolicyEngine | undefined;
  readonly #known: Known | undefined;
  readonly #isEndWanted: boolean;
  readonly #subjects = new Map<string, SubjectFacts | undefined>();
  readonly #apps = new Map<string, AppFacts | undefined>();
  /** Denials by who asked, and for what: a device may hold many tunnels to one app. */
  readonly #denials = new WeakMap<SubjectFacts, Map<AppFacts, AccessDecision>>();

  /**
   * `policy` in place of the active one. Without `known` everything is read, and policy asked; without `isEndWanted` only
   * about now, so that the end in a decision may be too late.
   */
  constructor(
    services: Services,
    db: Reader | Tx,
    nowMs: number,
    {
      policy,
      known,
      isEndWanted = true,
    }: {
      readonly policy?: PolicyEngine;
      readonly known?: Known;
      readonly isEndWanted?: boolean;
    } = {},
  ) {
    this.#services = services;
    this.#db = db;
    this.#nowMs = nowMs;
    this.#policy = policy;
    this.#known = known;
    this.#isEndWanted = isEndWanted;
  }

  async evaluate(tunnel: LiveTunnel): Promise<Evaluated | null> {
    const address = this.#addressOf(tunnel);
    const subject = await this.#subject(tunnel, address);
    const app = await this.#app(tunnel);
    if (!subject || !app) return null;
    // After the waiting: another policy may have become active meanwhile.
    const policy = this.#policy ?? this.#services.policy;
    const denials = this.#denials.get(subject) ?? new Map<AppFacts, AccessDecision>();
    this.#denials.set(subject, denials);
    const denial = denials.get(app);
    if (denial?.policyVersion === policy.version) return { subject, app, decision: denial };
    const windowMs = this.#isEndWanted ? leaseLengthMs(tunnel.intervalMs) : 0;
    const decision = this.#known
      ? this.#known.verdicts.decide(policy, tunnel, subject, app, windowMs)
      : decideAccess(policy, subject, app, windowMs);
    if (decision.verdict === 'deny') denials.set(app, decision);
    return { subject, app, decision };
  }

  /** The agent may have moved since; while it has no channel, its last address counts. */
  #addressOf(tunnel: LiveTunnel): string {
    const newest = this.#services.peers.devices(tunnel.device).at(-1);
    if (newest) tunnel.address = newest.address;
    return tunnel.address;
  }

  async #subject(tunnel: LiveTunnel, address: string): Promise<SubjectFacts | undefined> {
    const key = `${tunnel.session} ${tunnel.device} ${address} ${tunnel.suspension ? 'held' : ''}`;
    if (!this.#subjects.has(key)) {
      const at = { address, nowMs: this.#nowMs };
      const { device } = tunnel;
      const stored = await this.#storedSubject(tunnel);
      if (stored) {
        this.#subjects.set(key, await subjectAt(this.#services, this.#db, stored, at));
        return this.#subjects.get(key);
      }
      // What is held back goes on under whatever session its user has by now.
      const live = tunnel.suspension && (await findLiveSession(this.#db, device, this.#nowMs));
      const ids = { device, session: live?.id ?? tunnel.session };
      this.#subjects.set(key, await readSubject(this.#services, this.#db, ids, at));
    }
    return this.#subjects.get(key);
  }

  /** What is known of who holds it; what is held back goes by what is read anew. */
  async #storedSubject(tunnel: LiveTunnel): Promise<StoredSubject | undefined> {
    if (!this.#known || tunnel.suspension) return undefined;
    const { facts, stamps } = this.#known;
    const nowMs = this.#nowMs;
    const at = { stamps, nowMs, untilMs: nowMs + leaseLengthMs(tunnel.intervalMs) };
    return facts.subject(this.#services, this.#db, tunnel, at);
  }

  async #app(tunnel: LiveTunnel): Promise<AppFacts | undefined> {
    if (!this.#apps.has(tunnel.app)) {
      const app = this.#known
        ? await this.#known.facts.app(this.#db, tunnel.app, {
            stamps: this.#known.stamps,
            nowMs: this.#nowMs,
          })
        : await readApp(this.#db, { id: tunnel.app });
      this.#apps.set(tunnel.app, app);
    }
    return this.#apps.get(tunnel.app);
  }
}

/** For so long at most, or one tunnel, channels wait for an answer to their pings. */
const busyMs = 50;

/** Tunnels of other control planes that are announced one by one; beyond, all are verified. */
const maxNamed = 64;

/** What became of tunnels that were decided anew. */
export interface Reevaluated {
  readonly ended: number;
  readonly suspended: number;
}

/**
 * Decides tunnels and unexpired grants anew inside the change that may end them: each that is denied gets an entry
 * in the revocation log, which suspends it where its user can mend what is missing and revokes it elsewhere. Those still
 * allowed are verified at once, since their known end may have moved; those that were held back may go on. `cause` is the reason told when policy itself, and no state of the user, denies; `policy`
 * is one that this very change makes active. Nothing outside `tx` changes before it is durable.
 */
export async function reevaluate(
  services: Services,
  tx: Tx,
  tunnels: readonly LiveTunnel[],
  cause: string,
  policy?: PolicyEngine,
): Promise<Reevaluated> {
  const { store, clock } = services;
  await store.lockOrder(tx, 'revocation');
  const nowMs = clock.nowMs();
  const active = policy ?? (await refreshPolicy(services, tx));
  // Whoever is still allowed is verified next, which finds the end.
  const evaluation = new Evaluation(services, tx, nowMs, { policy: active, isEndWanted: false });
  const remedies = new Map<AccessDecision, Remedy | null>();
  const foreign: string[] = [];
  let ended = 0;
  let suspended = 0;
  let yieldedAtMs = performance.now();
  for (const tunnel of tunnels) {
    if (performance.now() - yieldedAtMs > busyMs) {
      await setImmediate(); // a store in this process answers without: nobody else would get a turn until the end
      yieldedAtMs = performance.now();
    }
    if (tunnel.state === 'closed') continue;
    const evaluated = await evaluation.evaluate(tunnel);
    if (evaluated?.decision.verdict === 'allow') {
      if (tunnel.suspension) await liftSuspension(services, tx, tunnel);
      else if (isOwn(services, tunnel)) services.schedule.hasten(tunnel.id, nowMs);
      else foreign.push(tunnel.id);
      continue;
    }
    const reason = evaluated ? reasonOf(evaluated, cause, nowMs) : cause;
    let remedy: Remedy | null = null;
    if (evaluated && isSuspendable(tunnel)) {
      const known = remedies.get(evaluated.decision);
      remedy = known === undefined ? remedyFor(active, evaluated, nowMs) : known;
      remedies.set(evaluated.decision, remedy);
    }
    if (remedy && remedy.reason === tunnel.suspension?.reason) continue;
    const decision = evaluated
      ? await recordDecision(tx, evaluated.decision, {
          subject: evaluated.subject,
          app: evaluated.app,
          tunnel: tunnel.id,
        })
      : tunnel.decision;
    if (remedy && evaluated) {
      const risk = evaluated.subject.riskOf(evaluated.app.app.name);
      await suspendTunnel(services, tx, tunnel, suspensionBy(remedy, decision, risk));
      suspended += 1;
      continue;
    }
    await revokeTunnels(services, tx, [tunnel], { reason, code: 'ERR_TUNNEL_REVOKED', decision });
    store.afterCommit(tx, () => {
      tunnel.decision = decision;
    });
    ended += 1;
  }
  if (foreign.length > maxNamed) store.announce(tx, 'verify');
  else for (const id of foreign) store.announce(tx, `verify:${id}`);
  return { ended, suspended };
}

/**
 * What the user could do for a live tunnel that is denied: the smallest change that turns the denial into an allow. A
 * session that has run out is mended by a sign-in, where policy would then allow; one that somebody ended is not.
 */
export function remedyFor(
  policy: PolicyEngine,
  { subject, app, decision }: Evaluated,
  nowMs: number,
): Remedy | null {
  const [first] = decision.reasons;
  const request = toPolicyRequest(policy, subject, app);
  if (first === undefined || !stopReasons.includes(first)) {
    return remedyOf(explainDecision(policy, request), subject);
  }
  if (first === 'device_restricted') {
    return explainDecision(policy, request).verdict === 'allow' ? compliance : null;
  }
  if (first !== 'session_ended' || !isRunOut(subject, nowMs)) return null;
  const authentication = { ...request.context.authentication, age_seconds: 0 };
  const context = { ...request.context, authentication };
  const signedIn = explainDecision(policy, { ...request, context });
  const asked: PolicyExplanation =
    signedIn.verdict === 'allow'
      ? { ...signedIn, verdict: 'deny', remedies: ['sign_in'] }
      : signedIn;
  return remedyOf(asked, subject);
}

/** True for a session that nobody ended on purpose. */
function isRunOut({ session }: SubjectFacts, nowMs: number): boolean {
  const { endReason, endedAtMs } = session;
  if (endedAtMs === null) return nowMs >= sessionEndMs(session);
  // What another system asks for is a sign-in too.
  return endReason !== null && (ranOutReasons.includes(endReason) || isSignal(endReason));
}

/** Session ends that a new sign-in mends. */
export const ranOutReasons: readonly string[] = [
  'session_expired',
  'session_idle',
  'signed_in_again',
  'provider_refused',
];

function isSignal(reason: string): boolean {
  return reason.startsWith('signal_');
}

const stateReasons: readonly string[] = [
  'device_revoked',
  'device_disabled',
  'device_pending',
  'device_restricted',
  'user_disabled',
  'user_expired',
];

const stopReasons: readonly string[] = [...stateReasons, 'session_ended'];

function reasonOf({ subject, decision }: Evaluated, cause: string, nowMs: number): string {
  const [first] = decision.reasons;
  if (first === 'session_ended') {
    const { endReason, absoluteEndAtMs } = subject.session;
    return endReason ?? (nowMs >= absoluteEndAtMs ? 'session_expired' : 'session_idle');
  }
  return first !== undefined && stateReasons.includes(first) ? first : cause;
}
