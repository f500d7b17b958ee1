import { createHash } from 'node:crypto';
import { passingMembers } from './context.ts';
import type { PolicyRequest } from './engine.ts';

/**
 * SHA-256, in hex, of what a decision depends on. What changes by itself as time passes is left out: two
 * requests with one digest have the same answer unless the decision's `readsTime` is true.
 */
export function inputDigest(request: PolicyRequest): string {
  const records = Object.entries<object>({ ...request.context }).filter(
    ([record]) => record !== 'time',
  );
  const steady = records.map(([record, facts]) => {
    const passing = passingMembers[record] ?? [];
    const kept = Object.entries(facts).filter(([member]) => !passing.includes(member));
    return [record, Object.fromEntries(kept)];
  });
  const inputs = {
    ...request,
    groups: [...request.groups].sort(),
    context: Object.fromEntries(steady) as unknown,
    riskBand: riskBand(request.context.risk.score),
  };
  return createHash('sha256').update(canonicalJson(inputs)).digest('hex');
}

/** A score falls by itself all the time; what is recorded anew is that it became another altogether. */
export function riskBand(score: number): number {
  return Math.floor(score / 10);
}

/** JSON with members in order of their names, so that the order in which facts were gathered does not count. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'object' && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}
