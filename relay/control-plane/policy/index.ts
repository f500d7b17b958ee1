export { smallestChange } from './change.ts';
export {
  checkPolicies,
  findPolicyProblems,
  formatProblem,
  type CheckedPolicies,
  type CheckOptions,
} from './check.ts';
export {
  isExtraCheckName,
  timeFacts,
  unknownPosture,
  versionBuild,
  versionNumber,
  type PolicyContext,
  type PostureFacts,
  type TimeFacts,
} from './context.ts';
export {
  checkExpectations,
  parseExpectations,
  type Expectation,
  type ExpectationFile,
  type Outcome,
} from './expectations.ts';
export { PolicyEngine, type PolicyDecision, type PolicyRequest } from './engine.ts';
export {
  explainDecision,
  type ExplainedCondition,
  type PolicyExplanation,
  type Remedy,
} from './explain.ts';
export { postureNeedsOf, type PostureNeed } from './posture-needs.ts';
export { policyDigest, readPolicy, storePolicy, type PolicyVersion } from './history.ts';
export { inputDigest, riskBand } from './input-digest.ts';
export {
  explainRules,
  toPublicRule,
  type ExplainedRule,
  type RuleCondition,
  type RuleEffect,
} from './rules.ts';
export { passingText, type PassingFacts } from './reads-time.ts';
export { policySchema } from './schema.ts';
export { policyLimits, readPolicyFiles, type PolicyFiles, type PolicyProblem } from './source.ts';
export type { CheckedPolicy, ValidationResult } from './validate.ts';
