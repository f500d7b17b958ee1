import { isIP } from 'node:net';
import { newId, type DecisionId, type TunnelId } from '../../../protocol/index.ts';
import { isMultiFactor, isPhishingResistant } from '../identity/index.ts';
import {
  inputDigest,
  timeFacts,
  type PassingFacts,
  type PolicyEngine,
  type PolicyRequest,
} from '../policy/index.ts';
import {
  atLater,
  disqualificationOf,
  knownEndMs,
  type AppFacts,
  type RiskPart,
  type SubjectFacts,
} from './facts.ts';
import { postureAgeSeconds, toPostureFacts } from '../posture/index.ts';
import type { Tx } from '../store/index.ts';

/** The answer to one question, with everything that it was answered by. */
export interface AccessDecision {
  readonly verdict: 'allow' | 'deny';
  /** Policy ids; or the one word by which the subject may do nothing at all. */
  readonly reasons: readonly string[];
  readonly errors: readonly string[];
  readonly policyVersion: number;
  readonly request: PolicyRequest;
  /** What the score in the request is made of. */
  readonly risk: readonly RiskPart[];
  /** Of all inputs but those that pass with time. Equal digests, policy and verdict are one decision confirmed. */
  readonly inputDigest: string;
  /** The verdict holds until then at most, whatever happens: sessions, accounts, memberships and posture end. */
  readonly endMs: number;
}

const dayMs = 86_400_000;

/** What policies read of a subject that changes by itself as time passes, worked out when it is asked for. */
export function passingFacts(subject: SubjectFacts, appName: string) {
  const { device, session, posture, nowMs } = subject;
  const count = (ms: number, unitMs: number) => Math.max(0, Math.floor(ms / unitMs));
  return {
    get device() {
      return { enrolled_days: count(nowMs - device.createdAtMs, dayMs) };
    },
    get posture() {
      return { age_seconds: postureAgeSeconds(posture, nowMs) }; // null: no posture counts
    },
    get authentication() {
      return { age_seconds: count(nowMs - session.authenticatedAtMs, 1_000) };
    },
    get time() {
      return timeFacts(nowMs);
    },
    get risk() {
      const { score, factors } = subject.riskOf(appName);
      return { score, factors };
    },
  } satisfies PassingFacts;
}

/** Puts facts into the words that policies use. */
export function toPolicyRequest(
  engine: PolicyEngine,
  subject: SubjectFacts,
  { app, site }: AppFacts,
): PolicyRequest {
  const { user, device, session, methods, groups, posture, country, address, nowMs } = subject;
  const passing = passingFacts(subject, app.name);
  return {
    user: user.name,
    groups: groups.map((group) => group.name),
    app: app.name,
    site: site.name,
    labels: JSON.parse(app.labelsJson) as Record<string, string>,
    context: {
      device: {
        id: device.id,
        platform: device.platform.split(' ', 1)[0] ?? '', // enrolment told its release, too
        hostname: device.hostname,
        ...passing.device,
      },
      posture: toPostureFacts(posture, engine.extraChecks, nowMs),
      authentication: {
        mfa: isMultiFactor(methods),
        phishing_resistant: isPhishingResistant(methods),
        methods,
        provider: session.provider,
        acr: session.acr,
        ...passing.authentication,
      },
      // An address that nobody knows lies in no network that a policy could name.
      network: { address: isIP(address) ? address : '0.0.0.0', country },
      time: passing.time,
      risk: passing.risk,
    },
  };
}

/**
 * Decides by the subject's own state and then by policy; default deny. `windowMs` is how far ahead the verdict has
 * to hold: memberships and posture that end within it are looked at beforehand, and shorten the verdict if they carry it.
 */
export function decideAccess(
  engine: PolicyEngine,
  subject: SubjectFacts,
  app: AppFacts,
  windowMs: number,
): AccessDecision {
  const request = toPolicyRequest(engine, subject, app);
  const digest = inputDigest(request);
  const risk = subject.riskOf(app.app.name).contributions;
  const disqualification = disqualificationOf(subject);
  if (disqualification !== undefined) {
    return {
      verdict: 'deny',
      reasons: [disqualification],
      errors: [],
      policyVersion: engine.version,
      request,
      risk,
      inputDigest: digest,
      endMs: subject.nowMs,
    };
  }
  const { verdict, reasons, errors, policyVersion } = engine.decide(request);
  const endMs = verdict === 'allow' ? endOf(engine, subject, app, windowMs) : subject.nowMs;
  return { verdict, reasons, errors, policyVersion, request, risk, inputDigest: digest, endMs };
}

function endOf(
  engine: PolicyEngine,
  subject: SubjectFacts,
  app: AppFacts,
  windowMs: number,
): number {
  const horizonMs = subject.nowMs + windowMs;
  const ends = [...subject.groups.map(({ untilMs }) => untilMs), subject.posture?.endMs ?? null]
    .map((untilMs) => untilMs ?? Infinity)
    .filter((untilMs) => untilMs <= horizonMs)
    .sort((a, b) => a - b);
  const carrying = ends.find((untilMs) => {
    const later = toPolicyRequest(engine, atLater(subject, untilMs), app);
    return engine.decide(later).verdict !== 'allow';
  });
  return Math.min(knownEndMs(subject), carrying ?? Infinity);
}

/** The inputs of a decision; what makes up the score in them stands beside what policy reads. */
function withRisk({ request, risk }: AccessDecision): unknown {
  return risk.length === 0 ? request : { ...request, risk };
}

/** Writes a decision down with its inputs, under a new id. */
export async function recordDecision(
  tx: Tx,
  decision: AccessDecision,
  about: {
    readonly subject: SubjectFacts;
    readonly app: AppFacts;
    readonly tunnel: TunnelId | null;
  },
): Promise<DecisionId> {
  const { subject, app } = about;
  const id = newId('decision');
  await tx
    .insertInto('decisions')
    .values({
      id,
      userId: subject.user.id,
      deviceId: subject.device.id,
      sessionId: subject.session.id,
      appId: app.app.id,
      appName: app.app.name,
      tunnelId: about.tunnel,
      verdict: decision.verdict,
      reasonsJson: JSON.stringify(decision.reasons),
      errorsJson: JSON.stringify(decision.errors),
      inputsJson: JSON.stringify(withRisk(decision)),
      inputDigest: decision.inputDigest,
      policyVersion: decision.policyVersion,
      decidedAtMs: subject.nowMs,
      confirmations: 0,
      lastConfirmedAtMs: subject.nowMs,
    })
    .execute();
  return id;
}

/** Writes down that an app was asked for which nobody knows: it must look like any other refusal. */
export async function recordUnknownApp(
  tx: Tx,
  subject: SubjectFacts,
  appName: string,
  policyVersion: number,
): Promise<DecisionId> {
  const id = newId('decision');
  await tx
    .insertInto('decisions')
    .values({
      id,
      userId: subject.user.id,
      deviceId: subject.device.id,
      sessionId: subject.session.id,
      appId: null,
      appName,
      tunnelId: null,
      verdict: 'deny',
      reasonsJson: JSON.stringify(['app_unknown']),
      errorsJson: '[]',
      inputsJson: JSON.stringify({ user: subject.user.name, address: subject.address }),
      inputDigest: '',
      policyVersion,
      decidedAtMs: subject.nowMs,
      confirmations: 0,
      lastConfirmedAtMs: subject.nowMs,
    })
    .execute();
  return id;
}
