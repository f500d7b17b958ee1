import { builtInChecks } from '../../../protocol/index.ts';
import type { PolicyContext, PostureFacts } from './context.ts';
import type { PolicyDecision, PolicyEngine, PolicyRequest } from './engine.ts';

/**
 * What would turn a denial into an allow: `sign_in` again, `step_up` to a second factor, mend the `posture`,
 * or wait for the `risk` to fall. The user can do the first three.
 */
export type Remedy = 'sign_in' | 'step_up' | 'posture' | 'risk';

/** A fact that a remedy changes: as it is and as it would have to be. */
export interface ExplainedCondition {
  readonly what: string; // `posture.disk_encryption`
  readonly actual: string;
  readonly required: string;
}

export interface PolicyExplanation extends PolicyDecision {
  /** Policies that permit, also where one that forbids has overridden them. */
  readonly permitting: readonly string[];
  readonly forbidding: readonly string[];
  /** Policies that would permit with `conditions` as required; empty when allowed, or when nothing would help. */
  readonly wouldPermit: readonly string[];
  /** The smallest change that would help; empty when allowed, or when nothing would. */
  readonly remedies: readonly Remedy[];
  readonly conditions: readonly ExplainedCondition[];
}

/** The most that a version can be, for asking whether a newer one would help. */
const newestVersion = 999_999_999_999;

/** In order of what they cost the user; what is smaller comes first. */
const candidates: readonly (readonly Remedy[])[] = [
  ['sign_in'],
  ['step_up'],
  ['posture'],
  ['risk'],
  ['sign_in', 'posture'],
  ['step_up', 'posture'],
  ['sign_in', 'risk'],
  ['step_up', 'risk'],
  ['posture', 'risk'],
  ['sign_in', 'posture', 'risk'],
  ['step_up', 'posture', 'risk'],
];

const everything: readonly Remedy[] = ['step_up', 'posture', 'risk'];

const hopeless = { wouldPermit: [], remedies: [], conditions: [] } as const;

/** Decides and says why; for a denial, finds the smallest change within the user's reach that would help. */
export function explainDecision(engine: PolicyEngine, request: PolicyRequest): PolicyExplanation {
  const decision = engine.decide(request);
  const permitting =
    decision.verdict === 'allow' ? decision.reasons : engine.decideByPermits(request).reasons;
  const forbidding = decision.verdict === 'deny' ? decision.reasons : [];
  const base = { ...decision, permitting, forbidding };
  if (decision.verdict === 'allow' || decision.errors.length > 0) {
    return { ...base, ...hopeless };
  }
  const allows = (context: PolicyContext) =>
    engine.decide({ ...request, context }).verdict === 'allow';
  const mendAll = (remedies: readonly Remedy[]) =>
    remedies.reduce(
      (context, remedy) => mend(context, remedy, engine.extraChecks),
      request.context,
    );
  // Most denials are of apps that nothing would open: one question instead of eleven.
  if (!allows(mendAll(everything))) return { ...base, ...hopeless };
  for (const remedies of candidates) {
    const mended = mendAll(remedies);
    if (!allows(mended)) continue;
    const needed = dropNeedless(request.context, mended, allows);
    const conditions = differences(request.context, needed);
    const wouldPermit = engine.decide({ ...request, context: needed }).reasons;
    return { ...base, wouldPermit, remedies, conditions };
  }
  return { ...base, ...hopeless };
}

function mend(
  context: PolicyContext,
  remedy: Remedy,
  extraChecks: readonly string[],
): PolicyContext {
  const { authentication } = context;
  switch (remedy) {
    case 'sign_in':
      return { ...context, authentication: { ...authentication, age_seconds: 0 } };
    case 'step_up': {
      const methods = [...new Set([...authentication.methods, 'totp', 'passkey'])];
      const proved = { age_seconds: 0, mfa: true, phishing_resistant: true, methods };
      return { ...context, authentication: { ...authentication, ...proved } };
    }
    case 'posture':
      return { ...context, posture: healthy(context.posture, extraChecks) };
    case 'risk':
      return { ...context, risk: { score: 0, factors: [] } };
  }
}

function healthy(posture: PostureFacts, extraChecks: readonly string[]): PostureFacts {
  const checks = [...builtInChecks, ...extraChecks];
  return {
    ...posture,
    ...Object.fromEntries(checks.map((check) => [check, 'on'])),
    os_version_number: newestVersion,
    os_build: newestVersion,
    client_version_number: newestVersion,
    age_seconds: 0,
  };
}

type Records = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

const asRecords = (context: PolicyContext): Records => context as unknown as Records;

/**
 * Takes back each changed fact without which access is allowed all the same, so that only what matters is named. Most do
 * not matter, and each question takes a while, so that halves are tried before single facts.
 */
function dropNeedless(
  actual: PolicyContext,
  mended: PolicyContext,
  allows: (context: PolicyContext) => boolean,
): PolicyContext {
  let needed = mended;
  const drop = (facts: readonly ChangedFact[]): void => {
    const without = facts.reduce(
      (context, { record, member, value }) => ({
        ...context,
        [record]: { ...asRecords(context)[record], [member]: value },
      }),
      needed,
    );
    if (allows(without)) {
      needed = without;
      return;
    }
    if (facts.length === 1) return;
    const half = Math.ceil(facts.length / 2);
    drop(facts.slice(0, half));
    drop(facts.slice(half));
  };
  drop(changedFacts(actual, mended));
  return needed;
}

interface ChangedFact {
  readonly record: string;
  readonly member: string;
  readonly value: unknown;
}

function changedFacts(actual: PolicyContext, mended: PolicyContext): ChangedFact[] {
  return Object.entries(asRecords(actual)).flatMap(([record, facts]) =>
    Object.entries(facts)
      .filter(([member, value]) => asRecords(mended)[record]?.[member] !== value)
      .map(([member, value]) => ({ record, member, value })),
  );
}

function differences(actual: PolicyContext, needed: PolicyContext): ExplainedCondition[] {
  return changedFacts(actual, needed).map(({ record, member, value }) => {
    const required = asRecords(needed)[record]?.[member];
    return {
      what: `${record}.${member}`,
      actual: toText(value),
      required:
        required === newestVersion
          ? 'newer'
          : member === 'age_seconds'
            ? 'recent'
            : toText(required),
    };
  });
}

/** A fact as text. */
export function toText(value: unknown): string {
  return Array.isArray(value) ? value.join('+') : String(value);
}
