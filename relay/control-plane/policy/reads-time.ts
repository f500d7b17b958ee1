import { passingMembers } from './context.ts';
import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';

/** What a policy reads of what changes by itself as time passes. */
export interface PassingRead {
  /** `*` for the whole context. */
  readonly record: string;
  /** Null for the whole record. */
  readonly member: string | null;
  /** The number that it is compared with, so that only above, equal or below counts; null: every change counts. */
  readonly limit: number | null;
}

/**
 * What makes that the policy's answer may change with time alone: `context.time` or an age. In doubt (a record or the context
 * compared or tested as a whole) it is all of the record or context.
 */
export function passingReads(policy: PolicyJson): PassingRead[] {
  const reads = policy.conditions.flatMap((condition) => readsIn(condition.body, null));
  return distinct(reads);
}

/** Each once. */
export function distinct(reads: readonly PassingRead[]): PassingRead[] {
  const byText = new Map(reads.map((read) => [JSON.stringify(read), read]));
  return [...byText.values()];
}

const comparisons = ['<', '<=', '>', '>=', '==', '!='];

/** `limit` is what the node is compared with, where that is a number. */
function readsIn(node: unknown, limit: number | null): PassingRead[] {
  if (Array.isArray(node)) return node.flatMap((item) => readsIn(item, null));
  if (typeof node !== 'object' || node === null) return [];
  const path = contextPath(node);
  if (path) return readsOf(path, limit);
  return Object.entries(node).flatMap(([operator, operands]) => {
    const { left, right } = (operands ?? {}) as { left?: unknown; right?: unknown };
    // A record may have a member of that name.
    const isComparison =
      comparisons.includes(operator) && left !== undefined && right !== undefined;
    if (!isComparison) return readsIn(operands, null);
    return [...readsIn(left, numberOf(right)), ...readsIn(right, numberOf(left))];
  });
}

/** `context.a.b` as [a, b], `context` as []; undefined for anything that does not begin at the context. */
function contextPath(node: object): string[] | undefined {
  const { Var: variable, '.': access } = node as Record<string, unknown>;
  if (variable !== undefined) return variable === 'context' ? [] : undefined;
  if (typeof access !== 'object' || access === null) return undefined;
  const { left, attr } = access as { left?: unknown; attr?: unknown };
  if (typeof left !== 'object' || left === null || typeof attr !== 'string') return undefined;
  const path = contextPath(left);
  return path && [...path, attr];
}

function readsOf([record, member]: string[], limit: number | null): PassingRead[] {
  if (record === undefined) return [{ record: '*', member: null, limit: null }];
  const passing = passingMembers[record] ?? [];
  if (member === undefined) {
    return record === 'time' || passing.length > 0 ? [{ record, member: null, limit: null }] : [];
  }
  return record === 'time' || passing.includes(member) ? [{ record, member, limit }] : [];
}

function numberOf(node: unknown): number | null {
  const { Value: value } = (node ?? {}) as { Value?: unknown };
  return Number.isSafeInteger(value) ? (value as number) : null;
}

/** The members of a context that pass with time, as they are at a moment, by record. */
export type PassingFacts = Readonly<Record<string, object>>;

/**
 * What these reads find: two moments with the same text have the same answer from policies that read nothing else which
 * passes, as long as all other inputs are the same.
 */
export function passingText(reads: readonly PassingRead[], facts: PassingFacts): string {
  const found = reads.map(({ record, member, limit }) => {
    if (record === '*') return facts;
    const members: Readonly<Record<string, unknown>> = { ...facts[record] };
    if (member === null) return members;
    const value = members[member];
    return limit !== null && typeof value === 'number' ? Math.sign(value - limit) : value;
  });
  return JSON.stringify(found);
}
