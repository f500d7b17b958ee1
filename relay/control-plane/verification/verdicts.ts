import {
  decideAccess,
  passingFacts,
  toPolicyRequest,
  type AccessDecision,
} from '../grant/decide.ts';
import {
  atLater,
  disqualificationOf,
  knownEndMs,
  type AppFacts,
  type SubjectFacts,
} from '../grant/facts.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import { passingText, riskBand, type PolicyEngine } from '../policy/index.ts';
import { isSamePosture } from '../posture/index.ts';

/** An allow, with everything that it came from. */
interface Verdict {
  readonly engine: PolicyEngine;
  readonly subject: SubjectFacts;
  readonly app: AppFacts;
  /** Its end, its question and the risk in it are told anew each time. */
  readonly decision: Omit<AccessDecision, 'request' | 'risk' | 'endMs'>;
  /** Of what passes with time, all that policies look at: at the decision, and at the end of its posture. */
  readonly passing: string;
  readonly later: Later | null;
}

/** What becomes of the verdict when the posture counts no more; null in its place where that was not looked at. */
interface Later {
  readonly isAllowed: boolean;
  readonly passing: string;
}

/**
 * Decides tunnels anew by what was answered before, where the question is the same: the same rows, posture, place and
 * policy, and of what passes with time the same as far as the policy can tell. Then the answer is, too. Only an allow is
 * remembered, and never near the end of anything that it rests on but posture.
 */
export class Verdicts {
  readonly #known = new WeakMap<LiveTunnel, Verdict>();

  /** As `decideAccess`. */
  decide(
    engine: PolicyEngine,
    tunnel: LiveTunnel,
    subject: SubjectFacts,
    app: AppFacts,
    windowMs: number,
  ): AccessDecision {
    const known = this.#known.get(tunnel);
    const confirmed = known && confirm(known, { engine, tunnel, subject, app, windowMs });
    if (confirmed) return confirmed;
    this.#known.delete(tunnel);
    const decision = decideAccess(engine, subject, app, windowMs);
    if (decision.verdict === 'allow' && !endsBy(subject, subject.nowMs + windowMs)) {
      const { verdict, reasons, errors, policyVersion, inputDigest, endMs } = decision;
      const later = laterOf(engine, subject, app, { endMs, windowMs });
      const passing = passingOf(engine, subject, app);
      const kept = { verdict, reasons, errors, policyVersion, inputDigest };
      this.#known.set(tunnel, { engine, subject, app, decision: kept, passing, later });
    }
    return decision;
  }
}

function confirm(
  known: Verdict,
  now: {
    readonly engine: PolicyEngine;
    readonly tunnel: LiveTunnel;
    readonly subject: SubjectFacts;
    readonly app: AppFacts;
    readonly windowMs: number;
  },
): AccessDecision | undefined {
  const { engine, tunnel, subject, app, windowMs } = now;
  const { decision } = known;
  // What the store holds of it must be this very decision: else it has to be written down, as it is now.
  if (tunnel.inputDigest !== decision.inputDigest) return undefined;
  if (tunnel.policyVersion !== decision.policyVersion) return undefined;
  if (known.engine !== engine || engine.version !== decision.policyVersion) return undefined;
  if (known.app.app !== app.app || known.app.site !== app.site) return undefined;
  if (!isSameSubject(known.subject, subject)) return undefined;
  if (disqualificationOf(subject) !== undefined) return undefined;
  const horizonMs = subject.nowMs + windowMs;
  if (endsBy(subject, horizonMs)) return undefined;
  if (passingOf(engine, subject, app) !== known.passing) return undefined;
  let endMs = knownEndMs(subject);
  const { posture } = subject;
  if (posture && posture.endMs <= horizonMs) {
    if (!known.later) return undefined;
    const later = passingOf(engine, atLater(subject, posture.endMs), app);
    if (later !== known.later.passing) return undefined;
    if (!known.later.isAllowed) endMs = Math.min(endMs, posture.endMs);
  }
  return {
    ...decision,
    endMs,
    get request() {
      return toPolicyRequest(engine, subject, app);
    },
    get risk() {
      return subject.riskOf(app.app.name).contributions;
    },
  };
}

/** By identity: what was read again is something else. */
function isSameSubject(known: SubjectFacts, now: SubjectFacts): boolean {
  return (
    known.user === now.user &&
    known.device === now.device &&
    known.session === now.session &&
    known.methods === now.methods &&
    known.groups === now.groups &&
    known.address === now.address &&
    known.country === now.country &&
    isSamePostureAt(known, now)
  );
}

function isSamePostureAt(known: SubjectFacts, now: SubjectFacts): boolean {
  const one = countingPosture(known);
  const other = countingPosture(now);
  return one === null || other === null ? one === other : isSamePosture(one.facts, other.facts);
}

function countingPosture({ posture, nowMs }: SubjectFacts): SubjectFacts['posture'] {
  return posture && nowMs < posture.endMs ? posture : null;
}

/** True when something that carries the verdict, other than posture, ends by then. */
function endsBy(subject: SubjectFacts, horizonMs: number): boolean {
  if (knownEndMs(subject) <= horizonMs) return true;
  return subject.groups.some(({ untilMs }) => untilMs !== null && untilMs <= horizonMs);
}

/** Nothing else ends within the window, so the verdict's end tells whether posture carries it. */
function laterOf(
  engine: PolicyEngine,
  subject: SubjectFacts,
  app: AppFacts,
  of: { readonly endMs: number; readonly windowMs: number },
): Later | null {
  const { posture, nowMs } = subject;
  if (!posture || posture.endMs > nowMs + of.windowMs) return null;
  const passing = passingOf(engine, atLater(subject, posture.endMs), app);
  return { isAllowed: of.endMs > posture.endMs, passing };
}

function passingOf(engine: PolicyEngine, subject: SubjectFacts, { app, site }: AppFacts): string {
  const reads = engine.passingReads({ app: app.name, site: site.name });
  const facts = passingFacts(subject, app.name);
  const band = riskBand(facts.risk.score); // the decision is written down anew with another
  return reads.length === 0 ? String(band) : `${String(band)} ${passingText(reads, facts)}`;
}
