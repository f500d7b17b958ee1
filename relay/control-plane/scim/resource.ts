import type { ScimToken } from '../store/index.ts';
import { parseFilter, type Equality } from './filter.ts';
import { refuseScim } from './refuse.ts';

/** Where everything of SCIM is. */
export const scimPath = '/scim/v2/';

export const userSchema = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const groupSchema = 'urn:ietf:params:scim:schemas:core:2.0:Group';
const listSchema = 'urn:ietf:params:scim:api:messages:2.0:ListResponse';

/** Resources of one page, unless it is asked for fewer. */
export const maxPage = 200;
const usualPage = 100;

/** Who asks: what he provisions is marked with `scope`, and nothing else is shown to him. */
export interface ScimCaller {
  readonly actor: string;
  readonly scope: string;
  readonly provider: string | null;
}

export function callerOf({ name, provider }: Pick<ScimToken, 'name' | 'provider'>): ScimCaller {
  return { actor: `scim:${name}`, scope: scopeOf(provider), provider };
}

/** What marks the users, groups and memberships of a directory. */
export function scopeOf(provider: string | null): string {
  return provider === null ? 'scim' : `scim ${provider}`;
}

export type Resource = Readonly<Record<string, unknown>> & { readonly id: string };

export function metaOf(base: string, kind: 'User' | 'Group', id: string, createdAtMs: number) {
  return {
    resourceType: kind,
    created: new Date(createdAtMs).toISOString(),
    location: locationOf(base, kind, id),
  };
}

export function locationOf(base: string, kind: 'User' | 'Group', id: string): string {
  return new URL(`${scimPath}${kind}s/${id}`, base).href;
}

/** Which resources are asked for. */
export interface ListQuery {
  readonly filter: readonly Equality[];
  readonly offset: number;
  readonly limit: number;
  /** False where nobody wants to know who is in a group. */
  readonly hasMembers: boolean;
}

export function readListQuery(query: URLSearchParams): ListQuery {
  const filter = query.get('filter');
  const count = readCount(query, 'count') ?? usualPage;
  return {
    filter: filter === null ? [] : parseFilter(filter),
    offset: Math.max(readCount(query, 'startIndex') ?? 1, 1) - 1,
    limit: Math.min(Math.max(count, 0), maxPage), // a negative one means none
    hasMembers: wants(query, 'members'),
  };
}

function readCount(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null) return undefined;
  if (/^-?\d{1,9}$/.test(text)) return Number(text);
  throw refuseScim('scim_invalid_value', `${name} must be a number`);
}

export function listOf<T>(resources: readonly T[], total: number, offset: number) {
  return {
    schemas: [listSchema],
    totalResults: total,
    startIndex: offset + 1,
    itemsPerPage: resources.length,
    Resources: resources,
  };
}

/** Told always, whatever is asked for. */
const always: readonly string[] = ['schemas', 'id', 'meta'];

/** Names of whole attributes in a list of them; undefined where there is no list. */
function namesIn(query: URLSearchParams, name: string): string[] | undefined {
  return query
    .get(name)
    ?.split(',')
    .map((one) => (one.trim().toLowerCase().split(/[.[]/)[0] ?? '').replace(/^.*:/, ''));
}

/** Whether `attributes` and `excludedAttributes` want an attribute. */
function wants(query: URLSearchParams, attribute: string): boolean {
  const wanted = namesIn(query, 'attributes');
  if (wanted !== undefined) return wanted.includes(attribute);
  return namesIn(query, 'excludedAttributes')?.includes(attribute) !== true;
}

/** Leaves out what `attributes` or `excludedAttributes` do not want, by the name of whole attributes. */
export function project(query: URLSearchParams, resource: Resource): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(resource).filter(
      ([name]) => always.includes(name) || wants(query, name.toLowerCase()),
    ),
  );
}
