import type { PolicyRequest } from './engine.ts';
import type { Atom } from './need.ts';

/** A condition as people read it: what it looks at, how that is, and how access needs it. */
export interface ConditionText {
  readonly what: string; // posture.disk_encryption, groups, labels.env
  readonly actual: string;
  readonly required: string;
  /** Groups of which one would do, where it is about those. */
  readonly groups?: readonly string[];
}

type Node = Readonly<Record<string, unknown>>;

interface Sides {
  readonly left: Node;
  readonly right: Node;
}

/** The part of a request that an expression reads. */
interface Fact {
  readonly what: string;
  readonly actual: string;
}

/** Puts a condition in words; undefined for what is more than one comparison with one fact. */
export function describeAtom(
  { expression, wanted }: Atom,
  request: PolicyRequest,
): ConditionText | undefined {
  const node = expression as unknown as Node;
  const [operator] = Object.keys(node);
  const operand = operator === undefined ? undefined : node[operator];
  if (operator === undefined || operand === undefined) return undefined;
  const bare = operator === '.' ? factOf(node, request) : undefined;
  if (bare) return { ...bare, required: String(wanted) };
  if (isComparison(operator)) return compare(operator, operand as Sides, wanted, request);
  switch (operator) {
    case 'in':
      return describeIn(operand as Sides, wanted, request);
    case 'contains':
    case 'containsAny':
    case 'containsAll':
      return describeContains(operator, operand as Sides, wanted, request);
    case 'like':
      return describeLike(operand as { left: Node; pattern: unknown }, wanted, request);
    case 'isEmpty': {
      const fact = factOf((operand as { arg: Node }).arg, request);
      return fact && { ...fact, required: wanted ? 'empty' : 'not empty' };
    }
    case 'hasTag': {
      const fact = tagOf(operand as Sides, request);
      return fact && { ...fact, required: wanted ? 'set' : 'not set' };
    }
    default:
      return describeAddress(operator, operand, wanted, request);
  }
}

/** How each comparison reads when its sides change places, and what it means when it must not hold. */
const comparisons = {
  '==': { mirrored: '==', denied: '!=' },
  '!=': { mirrored: '!=', denied: '==' },
  '<': { mirrored: '>', denied: '>=' },
  '<=': { mirrored: '>=', denied: '>' },
  '>': { mirrored: '<', denied: '<=' },
  '>=': { mirrored: '<=', denied: '<' },
} as const;
type Comparison = keyof typeof comparisons;

function isComparison(operator: string): operator is Comparison {
  return Object.hasOwn(comparisons, operator);
}

function compare(
  written: Comparison,
  { left, right }: Sides,
  wanted: boolean,
  request: PolicyRequest,
): ConditionText | undefined {
  const isMirrored = factOf(left, request) === undefined;
  const fact = factOf(isMirrored ? right : left, request);
  const other = isMirrored ? left : right;
  const literal = literalOf(other);
  const otherFact = factOf(other, request);
  const value = literal ?? (otherFact && `${otherFact.what} (${otherFact.actual})`);
  if (!fact || value === undefined) return undefined;
  const seen = isMirrored ? comparisons[written].mirrored : written;
  const needed = wanted ? seen : comparisons[seen].denied;
  const isVersion = fact.what.endsWith('_version_number');
  const shown = isVersion ? versionText(value) : value;
  const about = isVersion ? { ...fact, actual: versionText(fact.actual) } : fact;
  if (needed === '==') return { ...about, required: shown };
  if (needed !== '!=') return { ...about, required: `${needed} ${shown}` };
  const opposite = { true: 'false', false: 'true' }[value];
  return { ...about, required: opposite ?? `not ${shown}` };
}

function describeIn(
  { left, right }: Sides,
  wanted: boolean,
  request: PolicyRequest,
): ConditionText | undefined {
  const entities = entitiesOf(right);
  const [first] = entities ?? [];
  if (!entities || !first || entities.some(({ type }) => type !== first.type)) return undefined;
  const ids = entities.map(({ id }) => id);
  const required = oneOf(ids, wanted);
  if (left['Var'] === 'principal' && first.type === 'Group') {
    const actual = request.groups.join(', ') || 'none';
    return { what: 'groups', actual, required, ...(wanted ? { groups: ids } : {}) };
  }
  if (left['Var'] === 'resource' && first.type === 'Site') {
    return { what: 'site', actual: request.site, required };
  }
  const fact = factOf(left, request);
  return fact && { ...fact, required };
}

function describeContains(
  operator: 'contains' | 'containsAny' | 'containsAll',
  { left, right }: Sides,
  wanted: boolean,
  request: PolicyRequest,
): ConditionText | undefined {
  const choices = listOf(left);
  const member = factOf(right, request);
  if (operator === 'contains' && choices && member) {
    return { ...member, required: oneOf(choices, wanted) };
  }
  const set = factOf(left, request);
  const literal = literalOf(right);
  const asked = operator === 'contains' ? literal && [literal] : listOf(right);
  if (!set || !asked) return undefined;
  const many = operator === 'containsAny' ? 'any of ' : operator === 'containsAll' ? 'all of ' : '';
  const how = wanted ? 'with' : operator === 'containsAll' ? 'not with' : 'without';
  return { ...set, required: `${how} ${many}${asked.join(', ')}` };
}

function describeLike(
  { left, pattern }: { readonly left: Node; readonly pattern: unknown },
  wanted: boolean,
  request: PolicyRequest,
): ConditionText | undefined {
  const fact = factOf(left, request);
  if (!fact || !Array.isArray(pattern)) return undefined;
  const text = pattern
    .map((part: unknown) =>
      part === 'Wildcard' ? '*' : String((part as { Literal?: unknown }).Literal),
    )
    .join('');
  return { ...fact, required: `${wanted ? 'like' : 'not like'} ${text}` };
}

const kindsOfAddress: Readonly<Record<string, string>> = {
  isIpv4: 'IPv4',
  isIpv6: 'IPv6',
  isLoopback: 'a loopback address',
  isMulticast: 'a multicast address',
};

function describeAddress(
  operator: string,
  operands: unknown,
  wanted: boolean,
  request: PolicyRequest,
): ConditionText | undefined {
  if (!Array.isArray(operands)) return undefined;
  const [of, range] = operands as readonly Node[];
  const fact = of && factOf(of, request);
  if (!fact) return undefined;
  const within = operator === 'isInRange' && range ? literalOf(range) : undefined;
  const kind = within === undefined ? kindsOfAddress[operator] : `in ${within}`;
  return kind === undefined ? undefined : { ...fact, required: wanted ? kind : `not ${kind}` };
}

function oneOf(values: readonly string[], wanted: boolean): string {
  const [only] = values;
  if (only !== undefined && values.length === 1) return wanted ? only : `not ${only}`;
  return `${wanted ? 'one of' : 'none of'} ${values.join(', ')}`;
}

function factOf(node: Node, request: PolicyRequest): Fact | undefined {
  if (node['Var'] === 'principal') return { what: 'user', actual: request.user };
  if (node['Var'] === 'resource') return { what: 'app', actual: request.app };
  if (node['getTag'] !== undefined) return tagOf(node['getTag'] as Sides, request);
  const member = accessOf(node);
  const record = member && accessOf(member.left);
  if (!record || record.left['Var'] !== 'context') return undefined;
  const isEntity = record.attr === 'device' && member.attr === 'entity';
  const name = isEntity ? 'id' : member.attr;
  const records = request.context as unknown as Readonly<Record<string, Node>>;
  const value = records[record.attr]?.[name];
  const actual = Array.isArray(value) ? value.join(', ') || 'none' : String(value) || 'unknown';
  return { what: `${record.attr}.${name}`, actual };
}

function accessOf(node: Node): { readonly left: Node; readonly attr: string } | undefined {
  return node['.'] as { readonly left: Node; readonly attr: string } | undefined;
}

function tagOf({ left, right }: Sides, { labels }: PolicyRequest): Fact | undefined {
  const key = literalOf(right);
  if (left['Var'] !== 'resource' || key === undefined) return undefined;
  return {
    what: `labels.${key}`,
    actual: Object.hasOwn(labels, key) ? (labels[key] ?? '') : 'none',
  };
}

function literalOf(node: Node): string | undefined {
  const value = node['Value'];
  if (['string', 'number', 'boolean'].includes(typeof value)) return String(value);
  const entity = (value as { __entity?: { id: string } } | undefined)?.__entity;
  if (entity) return entity.id;
  const [address] = (node['ip'] ?? []) as readonly Node[];
  return address && literalOf(address);
}

function listOf(node: Node): string[] | undefined {
  const members = node['Set'];
  if (!Array.isArray(members)) return undefined;
  const texts = (members as Node[]).map(literalOf);
  return texts.every((text) => text !== undefined) ? texts : undefined;
}

function entitiesOf(node: Node): { readonly type: string; readonly id: string }[] | undefined {
  const nodes = Array.isArray(node['Set']) ? (node['Set'] as Node[]) : [node];
  const entities = nodes.map(
    (member) =>
      (member['Value'] as { __entity?: { type: string; id: string } } | undefined)?.__entity,
  );
  return entities.every((entity) => entity !== undefined) ? entities : undefined;
}

/** 14005001 as 14.5.1. */
function versionText(number: string): string {
  const value = Number(number);
  if (!Number.isSafeInteger(value) || value <= 0) return number === '0' ? 'unknown' : number;
  const parts = [Math.floor(value / 1_000_000), Math.floor(value / 1_000) % 1_000, value % 1_000];
  return parts.join('.');
}
