import {
  maxExplainedConditions,
  maxExplainedRules,
  suspendableVersion,
  type ToDevice,
} from '../../../protocol/index.ts';
import {
  explainRules,
  type ExplainedRule,
  type PolicyEngine,
  type PolicyExplanation,
  type PolicyRequest,
  type RuleCondition,
} from '../policy/index.ts';

type WhyAnswer = Extract<ToDevice, { type: 'why' }>;
type Condition = WhyAnswer['conditions'][number];
type Rule = NonNullable<WhyAnswer['rules']>[number];

/**
 * What a user may know of the decision on an app that he or she has, or could have by an own remedy: the rules that decide
 * and what they ask of the user and the device. Not how risk is weighed, nor what the app is, nor which other groups would
 * do.
 */
export function tellUser(
  engine: PolicyEngine,
  request: PolicyRequest,
  explained: PolicyExplanation,
  version: number,
): Pick<WhyAnswer, 'conditions' | 'rules'> {
  const rules = explainRules(engine, request, explained, {
    only: ['forbids', 'permits', 'would_permit'],
    most: maxExplainedRules,
  });
  const hasNames = version >= suspendableVersion;
  const told = rules.flatMap((rule) =>
    rule.conditions
      .filter((condition) => isUsersOwn(condition, rule))
      .map(({ what, actual, required, met, choice }): Condition => ({
        what: toWire(what, 128),
        actual: toWire(actual, 128),
        required: toWire(required, 128),
        met,
        ...(hasNames ? { rule: rule.id, ...(choice === null ? {} : { choice }) } : {}),
      })),
  );
  // A remedy that no rule's own words show, as inside a larger expression, is told as it was found.
  const hidden = explained.conditions
    .filter(({ what }) => !told.some((row) => row.what === what && !row.met))
    .map(({ what, actual, required }): Condition => ({
      what: toWire(what, 128),
      actual: toWire(actual, 128),
      required: toWire(required, 128),
      met: false,
    }));
  const conditions = [...hidden, ...told.map((row) => withoutLoneChoice(row, told))].slice(
    0,
    maxExplainedConditions,
  );
  return hasNames ? { conditions, rules: rules.map(toRule) } : { conditions };
}

/** A choice of which the rest may not be told is none. */
function withoutLoneChoice(row: Condition, all: readonly Condition[]): Condition {
  const { choice, ...rest } = row;
  const others = all.filter((other) => other.rule === row.rule && other.choice === choice);
  return choice === undefined || others.length > 1 ? row : rest;
}

function toRule({ id, name, effect }: ExplainedRule): Rule {
  const shown = effect === 'forbids' || effect === 'permits' ? effect : 'would_permit';
  return { id: toWire(id, 64), name: name === null ? null : toWire(name, 128), effect: shown };
}

const ownFact = /^(?:posture|authentication|device|network|time)\.[a-z0-9_]+$/;
const mendable = /^(?:posture|authentication)\.[a-z0-9_]+$/;

function isUsersOwn({ what, actual, required, met }: RuleCondition, rule: ExplainedRule): boolean {
  if (!met) return mendable.test(what) && rule.effect !== 'permits';
  if (what === 'groups') return actual.split(', ').includes(required);
  return what === 'user' || ownFact.test(what);
}

/** Policies and devices may say anything; a message holds plain text. */
export function toWire(text: string, max: number): string {
  const plain = text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, ' ');
  return plain.slice(0, max).toWellFormed();
}
