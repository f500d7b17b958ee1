import { describeAtom } from './condition.ts';
import { atomsOf, needOfPolicy, type Atom, type Need } from './need.ts';
import type { PolicyExplanation } from './explain.ts';
import type { PolicyEngine, PolicyRequest } from './engine.ts';
import type { CheckedPolicy } from './validate.ts';

/** One condition of a policy. */
export interface RuleCondition {
  readonly what: string;
  readonly actual: string;
  readonly required: string;
  readonly met: boolean;
  /** Of conditions of a policy with the same number one is enough; null: it stands alone. */
  readonly choice: number | null;
  /** Groups of which one would do, where it is about those. */
  readonly groups?: readonly string[];
}

/**
 * What a policy does to a request. `would_permit`: once the smallest change within the user's reach is made. `forbids` and
 * `permits` decide where they are, in this order.
 */
export type RuleEffect =
  'forbids' | 'permits' | 'would_permit' | 'does_not_permit' | 'does_not_forbid';

/** A policy about the app that was asked for. */
export interface ExplainedRule {
  readonly id: string;
  /** Its `@name("…")`. */
  readonly name: string | null;
  readonly file: string;
  readonly line: number;
  readonly effect: RuleEffect;
  readonly conditions: readonly RuleCondition[];
}

export interface ExplainOptions {
  readonly only?: readonly RuleEffect[];
  readonly most?: number;
}

const order: readonly RuleEffect[] = [
  'forbids',
  'permits',
  'would_permit',
  'does_not_permit',
  'does_not_forbid',
];

/** Policies that are taken apart for one answer, and their conditions together: a thousand take Cedar about 50 ms. */
const maxRules = 100;
const maxConditions = 1_000;

/**
 * The policies about the app, those that decide first, then by how little they miss. Conditions are those of the policies'
 * own text, each put to Cedar by itself; what Cedar fails at is not met. `only` leaves out what has other effects, `most`
 * policies are told of at most.
 */
export function explainRules(
  engine: PolicyEngine,
  request: PolicyRequest,
  explained: PolicyExplanation,
  { only = order, most = maxRules }: ExplainOptions = {},
): ExplainedRule[] {
  const effectOf = ({ id, effect }: CheckedPolicy): RuleEffect => {
    if (effect === 'forbid')
      return explained.forbidding.includes(id) ? 'forbids' : 'does_not_forbid';
    if (explained.permitting.includes(id)) return 'permits';
    return explained.wouldPermit.includes(id) ? 'would_permit' : 'does_not_permit';
  };
  const found = engine
    .policiesAbout(request)
    .map((policy) => ({ policy, effect: effectOf(policy), need: needOfPolicy(policy.json) }))
    .filter(({ effect }) => only.includes(effect))
    .sort((a, b) => rank(a) - rank(b))
    .slice(0, Math.min(most, maxRules));
  let count = 0;
  const rules = found.filter(({ need }) => (count += atomsOf(need).length) <= maxConditions);
  const atoms = rules.flatMap(({ need }) => atomsOf(need));
  const holding = engine.holding(atoms, request);
  const rows = new Rows(engine, request, new Set(atoms.filter((_, at) => holding[at])));
  return rules
    .map(({ policy: { id, name, file, line }, effect, need }) => {
      const conditions = rows.of(need);
      const missing = unmet(conditions);
      // What can never be met is farthest from it.
      const distance = missing === 0 && !rows.isMet(need) ? Infinity : missing;
      return { rule: { id, name, file, line, effect, conditions }, distance };
    })
    .sort((a, b) => rank(a.rule) - rank(b.rule) || compareDistance(a.distance, b.distance))
    .map(({ rule }) => rule);
}

/** A rule as it is told: without what only the search for a change needs. */
export function toPublicRule({ conditions, ...rule }: ExplainedRule) {
  return {
    ...rule,
    conditions: conditions.map(({ what, actual, required, met, choice }) => {
      return { what, actual, required, met, choice };
    }),
  };
}

/** Infinity less itself is no number. */
const compareDistance = (a: number, b: number): number => (a === b ? 0 : a - b);

const rank = ({ effect }: { readonly effect: RuleEffect }): number => order.indexOf(effect);

const unmet = (conditions: readonly RuleCondition[]): number =>
  conditions.filter(({ met }) => !met).length;

/** Turns needs into rows. */
class Rows {
  readonly #engine: PolicyEngine;
  readonly #request: PolicyRequest;
  readonly #met: ReadonlySet<Atom>;

  constructor(engine: PolicyEngine, request: PolicyRequest, met: ReadonlySet<Atom>) {
    this.#engine = engine;
    this.#request = request;
    this.#met = met;
  }

  of(need: Need): RuleCondition[] {
    const choices = { count: 0 };
    return this.#rowsOf(need, choices);
  }

  isMet(need: Need): boolean {
    if (need.kind === 'atom') return this.#met.has(need);
    const isMet = (part: Need) => this.isMet(part);
    return need.kind === 'all' ? need.of.every(isMet) : need.of.some(isMet);
  }

  #rowsOf(need: Need, choices: { count: number }): RuleCondition[] {
    if (need.kind === 'atom') return [this.#row(need)];
    if (need.kind === 'all') return need.of.flatMap((part) => this.#rowsOf(part, choices));
    const met = need.of.find((part) => this.isMet(part));
    if (met) return this.#rowsOf(met, choices);
    const atoms = need.of.filter((part) => part.kind === 'atom');
    if (atoms.length < need.of.length) return this.#nearest(need.of, choices);
    const rows = mergeRows(atoms.map((atom) => this.#row(atom)));
    if (rows.length < 2) return rows;
    choices.count += 1;
    return rows.map((row) => ({ ...row, choice: choices.count }));
  }

  /** Of alternatives that are several conditions each, the one that misses least. */
  #nearest(alternatives: readonly Need[], choices: { count: number }): RuleCondition[] {
    const rows = alternatives.map((part) => this.#rowsOf(part, choices));
    return rows.sort((a, b) => unmet(a) - unmet(b))[0] ?? [];
  }

  #row(atom: Atom): RuleCondition {
    const met = this.#met.has(atom);
    const text = describeAtom(atom, this.#request);
    if (text) return { ...text, met, choice: null };
    const what = this.#engine.textOf(atom.expression);
    const actual = String(met === atom.wanted);
    return { what, actual, required: String(atom.wanted), met, choice: null };
  }
}

/** Several accepted values of one fact are one row. */
function mergeRows(rows: readonly RuleCondition[]): RuleCondition[] {
  const merged = new Map<string, RuleCondition>();
  for (const row of rows) {
    const other = merged.get(row.what);
    const groups = [...(other?.groups ?? []), ...(row.groups ?? [])];
    const required = other ? `${other.required} or ${row.required}` : row.required;
    merged.set(row.what, { ...row, required, ...(groups.length > 0 ? { groups } : {}) });
  }
  return [...merged.values()];
}
