import * as v from 'valibot';
import { parse } from 'yaml';
import { ZtnaError } from '../../../protocol/index.ts';
import { timeFacts, unknownPosture, type PolicyContext } from './context.ts';
import { explainDecision, type ExplainedCondition } from './explain.ts';
import type { PolicyEngine, PolicyRequest } from './engine.ts';

const facts = v.record(v.string(), v.union([v.string(), v.number(), v.boolean()]));
const names = v.array(v.string());

const expectation = v.strictObject({
  name: v.optional(v.string()),
  user: v.string(),
  groups: v.optional(names, []),
  app: v.string(),
  site: v.optional(v.string(), 'any'),
  labels: v.optional(v.record(v.string(), v.string()), {}),
  device: v.optional(facts, {}),
  posture: v.optional(facts, {}),
  authentication: v.optional(
    v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), names])),
    {},
  ),
  network: v.optional(v.record(v.string(), v.string()), {}),
  risk: v.optional(v.number(), 0),
  /** ISO 8601; the time zone of policies is UTC. */
  at: v.optional(v.pipe(v.string(), v.isoTimestamp())),
  expect: v.picklist(['allow', 'deny']),
  /** Policies that decide, all of them. */
  by: v.optional(names),
});
export type Expectation = v.InferOutput<typeof expectation>;

const expectationFile = v.strictObject({
  /** Directory of the policies, from where this file is. */
  policies: v.optional(v.string()),
  /** The deployment's own posture checks. */
  checks: v.optional(names, []),
  tests: v.pipe(v.array(expectation), v.minLength(1), v.maxLength(10_000)),
});
export type ExpectationFile = v.InferOutput<typeof expectationFile>;

/** Reads a team's expectations. Throws ERR_CONFIG_INVALID with the place of what cannot be read. */
export function parseExpectations(text: string, file: string): ExpectationFile {
  let value: unknown;
  try {
    // Plain words stay words: `on` is what a check says, not a truth value.
    value = parse(text, { version: '1.2', uniqueKeys: true, maxAliasCount: 0 });
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${file}: ${why}`, cause });
  }
  const result = v.safeParse(expectationFile, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue) ?? 'the file';
  throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${file}: ${path}: ${issue.message}` });
}

export interface Outcome {
  readonly name: string;
  readonly passed: boolean;
  readonly expected: string;
  readonly actual: string;
  /** Policies that decided. */
  readonly by: readonly string[];
  readonly errors: readonly string[];
  /** What would turn a denial that was not expected into an allow. */
  readonly conditions: readonly ExplainedCondition[];
}

/** Asks the policies what a team expects of them. */
export function checkExpectations(
  engine: PolicyEngine,
  tests: readonly Expectation[],
  nowMs: number,
): Outcome[] {
  return tests.map((test, at) => {
    const explained = explainDecision(engine, toRequest(engine, test, nowMs));
    const isVerdict = explained.verdict === test.expect;
    const isBy = !test.by || [...test.by].sort().join(' ') === explained.reasons.join(' ');
    return {
      name: test.name ?? `${String(at + 1)}: ${test.user} to ${test.app}`,
      passed: isVerdict && isBy && explained.errors.length === 0,
      expected: test.expect + (test.by ? ` by ${test.by.join(', ')}` : ''),
      actual: explained.verdict,
      by: explained.reasons,
      errors: explained.errors,
      conditions: explained.conditions,
    };
  });
}

/** A machine and a user of whom only what is told is known, signed in just now with a password. */
function toRequest(engine: PolicyEngine, test: Expectation, nowMs: number): PolicyRequest {
  const atMs = test.at === undefined ? nowMs : Date.parse(test.at);
  const isSaid = Object.keys(test.posture).length > 0;
  const context = {
    device: {
      id: 'dev_test',
      platform: 'linux',
      hostname: 'test',
      enrolled_days: 30,
      ...test.device,
    },
    posture: {
      ...unknownPosture(engine.extraChecks),
      ...(isSaid ? { age_seconds: 0 } : {}),
      ...test.posture,
    },
    authentication: {
      mfa: false,
      phishing_resistant: false,
      methods: ['password'],
      provider: 'local',
      acr: '',
      age_seconds: 0,
      ...test.authentication,
    },
    network: { address: '192.0.2.1', country: '', ...test.network },
    time: timeFacts(atMs),
    risk: { score: test.risk, factors: [] },
  } as unknown as PolicyContext;
  const { user, groups, app, site, labels } = test;
  return { user, groups, app, site, labels, context };
}
