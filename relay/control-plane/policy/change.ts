import { explainDecision, type ExplainedCondition, type PolicyExplanation } from './explain.ts';
import type { PolicyEngine, PolicyRequest } from './engine.ts';
import type { ExplainedRule } from './rules.ts';

/** Groups that are tried for one answer. */
const maxGroups = 32;

/**
 * The fewest facts that would have to be otherwise for an allow: what the user could mend, else with one group more. Each is
 * tried on the policies. Empty where the request is allowed, or nothing of this kind would do.
 */
export function smallestChange(
  engine: PolicyEngine,
  request: PolicyRequest,
  explained: PolicyExplanation,
  rules: readonly ExplainedRule[],
): ExplainedCondition[] {
  if (explained.verdict === 'allow') return [];
  if (explained.conditions.length > 0) return inWordsOfRules(explained.conditions, rules);
  const unmet = rules
    .filter(({ effect }) => effect === 'does_not_permit')
    .flatMap(({ conditions }) => conditions.filter(({ met }) => !met));
  const groups = new Set(unmet.flatMap((condition) => condition.groups ?? []));
  let best: ExplainedCondition[] = [];
  for (const group of [...groups].slice(0, maxGroups)) {
    const joined = { ...request, groups: [...request.groups, group] };
    const then = explainDecision(engine, joined);
    if (then.verdict === 'deny' && then.conditions.length === 0) continue;
    const actual = request.groups.join(', ') || 'none';
    const change = [
      { what: 'groups', actual, required: group },
      ...inWordsOfRules(then.conditions, rules),
    ];
    if (best.length === 0 || change.length < best.length) best = change;
  }
  return best;
}

/** What a rule asks for says more than `newer` and `recent`. */
function inWordsOfRules(
  conditions: readonly ExplainedCondition[],
  rules: readonly ExplainedRule[],
): ExplainedCondition[] {
  return conditions.map((condition) => {
    const row = rules
      .filter(({ effect }) => effect !== 'does_not_forbid')
      .flatMap((rule) => rule.conditions)
      .find(({ what, met, choice }) => what === condition.what && !met && choice === null);
    return row ? { what: row.what, actual: row.actual, required: row.required } : condition;
  });
}
