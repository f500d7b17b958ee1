import { passingMembers } from './context.ts';
import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';

/**
 * True when the policy's answer may change with time alone: it reads `context.time` or an age. In doubt
 * (a record or the context compared or tested as a whole) it is true.
 */
export function readsTime(policy: PolicyJson): boolean {
  return policy.conditions.some((condition) => nodeReadsTime(condition.body));
}

function nodeReadsTime(node: unknown): boolean {
  if (Array.isArray(node)) return node.some(nodeReadsTime);
  if (typeof node !== 'object' || node === null) return false;
  const path = contextPath(node);
  if (path) return pathReadsTime(path);
  return Object.values(node).some(nodeReadsTime);
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

function pathReadsTime([record, member]: string[]): boolean {
  if (record === undefined || record === 'time') return true;
  const passing = passingMembers[record] ?? [];
  return member === undefined ? passing.length > 0 : passing.includes(member);
}
