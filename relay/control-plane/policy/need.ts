import type { Expr, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';

/** One question to Cedar that cannot be taken apart, and the answer that access needs. */
export interface Atom {
  readonly kind: 'atom';
  readonly expression: Expr;
  readonly wanted: boolean;
}

/** What has to be so for a policy to permit, or for one that forbids to let by. */
export type Need =
  | Atom
  | { readonly kind: 'all'; readonly of: readonly Need[] }
  | { readonly kind: 'any'; readonly of: readonly Need[] };

/**
 * Takes a policy apart into what access needs of it. That its head names the app, its site or the one action is left out: who
 * asks about an app looks only at policies about it.
 */
export function needOfPolicy(policy: PolicyJson): Need {
  const wanted = policy.effect === 'permit';
  const clauses = policy.conditions.map(({ kind, body }) =>
    needOf(body, (kind === 'when') === wanted),
  );
  return join(wanted ? 'all' : 'any', [...principalNeeds(policy.principal, wanted), ...clauses]);
}

/** Every atom of a need, in the order of its text. */
export function atomsOf(need: Need): Atom[] {
  return need.kind === 'atom' ? [need] : need.of.flatMap(atomsOf);
}

function principalNeeds(principal: PolicyJson['principal'], wanted: boolean): Need[] {
  const atom = (op: 'in' | '==', entity: unknown): Need => {
    const named = entity as { __entity?: unknown };
    const value = { Value: named.__entity === undefined ? { __entity: entity } : entity } as Expr;
    const sides = { left: { Var: 'principal' } as Expr, right: value };
    return { kind: 'atom', expression: { [op]: sides } as unknown as Expr, wanted };
  };
  if (principal.op === 'is') {
    return principal.in && 'entity' in principal.in ? [atom('in', principal.in.entity)] : [];
  }
  if (principal.op === 'All' || !('entity' in principal)) return [];
  return [atom(principal.op, principal.entity)];
}

function needOf(expression: Expr, wanted: boolean): Need {
  const node = expression as Readonly<Record<string, unknown>>;
  const both = (node['&&'] ?? node['||']) as { left: Expr; right: Expr } | undefined;
  if (both) {
    const isAll = (node['&&'] !== undefined) === wanted;
    return join(isAll ? 'all' : 'any', [needOf(both.left, wanted), needOf(both.right, wanted)]);
  }
  const not = node['!'] as { arg: Expr } | undefined;
  if (not) return needOf(not.arg, !wanted);
  // What is always or never so is an empty list of conditions, or of alternatives.
  if (typeof node['Value'] === 'boolean') {
    return { kind: node['Value'] === wanted ? 'all' : 'any', of: [] };
  }
  return { kind: 'atom', expression, wanted };
}

function join(kind: 'all' | 'any', needs: readonly Need[]): Need {
  const of = needs.flatMap((need) => (need.kind === kind ? need.of : [need]));
  const [only] = of;
  return only && of.length === 1 ? only : { kind, of };
}
