import { unknownPosture } from './context.ts';
import { explainDecision, toText, type ExplainedCondition } from './explain.ts';
import { explainRules } from './rules.ts';
import type { PolicyEngine, PolicyRequest } from './engine.ts';

/** A fact about a device that stands, or would stand, between its user and an app. */
export interface PostureNeed extends ExplainedCondition {
  readonly met: boolean;
}

/**
 * What an app needs of the device: for one that is denied, what would have to change; for one that is allowed, the facts
 * without which it would not be. In the words of the rules that ask for it, where one does so plainly.
 */
export function postureNeedsOf(engine: PolicyEngine, request: PolicyRequest): PostureNeed[] {
  const explained = explainDecision(engine, request);
  const found: PostureNeed[] =
    explained.verdict === 'allow'
      ? carryingFacts(engine, request)
      : explained.conditions
          .filter(({ what }) => what.startsWith('posture.'))
          .map((condition) => ({ ...condition, met: false }));
  if (found.length === 0 || explained.remedies.includes('risk')) return [];
  const rows = explainRules(engine, request, explained, {
    only: ['forbids', 'permits', 'would_permit', 'does_not_forbid'],
  }).flatMap((rule) => rule.conditions);
  return found.map((need) => {
    const asked = rows.filter(({ what, met }) => what === need.what && met === need.met);
    const [first] = asked;
    if (!first) return need;
    const required = [...new Set(asked.map((row) => row.required))].join(', ');
    return { ...need, actual: first.actual, required };
  });
}

/** The facts of the device without which what is allowed would not be. */
function carryingFacts(engine: PolicyEngine, request: PolicyRequest): PostureNeed[] {
  const { context } = request;
  return Object.entries(unknownPosture(engine.extraChecks)).flatMap(
    ([fact, value]): PostureNeed[] => {
      if (fact === 'age_seconds' || context.posture[fact] === value) return [];
      const without = { ...context, posture: { ...context.posture, [fact]: value } };
      if (engine.decide({ ...request, context: without }).verdict === 'allow') return [];
      const actual = toText(context.posture[fact]);
      return [{ what: `posture.${fact}`, actual, required: actual, met: true }];
    },
  );
}
