import { refuseScim } from './refuse.ts';

/** One `attribute eq value`; the attribute in lower case, without the schema's URN. */
export interface Equality {
  readonly attribute: string;
  readonly value: string | boolean;
}

/** Characters of a filter or path. */
const maxLength = 1_024;
const maxParts = 4;

const equality = /^\s*([A-Za-z][\w.:$-]*)\s+eq\s+("(?:[^"\\]|\\.)*"|true|false)\s*/i;
const conjunction = /^and\b/i;

/** A filter of RFC 7644, section 3.4.2.2, as far as it is `a eq b`, or several of them with `and`. Throws `scim_invalid_filter`. */
export function parseFilter(text: string): readonly Equality[] {
  if (text.length > maxLength) throw invalid('the filter is too long');
  const parts: Equality[] = [];
  for (let rest = text; ;) {
    const match = equality.exec(rest);
    if (!match) throw invalid('filters have the form: attribute eq "value" [and …]');
    const [all, attribute = '', value = ''] = match;
    parts.push({ attribute: plainName(attribute), value: readValue(value) });
    rest = rest.slice(all.length);
    if (rest === '') return parts;
    const and = conjunction.exec(rest);
    if (!and || parts.length >= maxParts) throw invalid('several conditions are joined by and');
    rest = rest.slice(and[0].length);
  }
}

/** An attribute's name as it is compared: in lower case, without the URN of a schema of RFC 7643 before it. */
export function plainName(attribute: string): string {
  return attribute
    .replace(/^urn:ietf:params:scim:schemas:core:2\.0:(?:User|Group):/i, '')
    .toLowerCase();
}

function readValue(text: string): string | boolean {
  if (!text.startsWith('"')) return text.toLowerCase() === 'true';
  try {
    return JSON.parse(text) as string;
  } catch (cause) {
    throw refuseScim('scim_invalid_filter', 'a value is no JSON text', cause);
  }
}

/** Where a PATCH operation applies: an attribute, maybe of those values alone that a filter names. */
export interface PatchPath {
  readonly attribute: string;
  readonly filter: readonly Equality[];
}

const pathPattern = /^([A-Za-z][\w.:$-]*)(?:\[(.*)\])?(\.[A-Za-z][\w$-]*)?$/;

/** A path of RFC 7644, section 3.5.2. Throws `scim_invalid_path`, `scim_invalid_filter`. */
export function parsePath(text: string): PatchPath {
  const match = text.length <= maxLength ? pathPattern.exec(text) : null;
  if (!match) throw refuseScim('scim_invalid_path', 'this is no path of an attribute');
  const [, attribute = '', filter, sub = ''] = match;
  return {
    attribute: plainName(attribute + sub),
    filter: filter === undefined ? [] : parseFilter(filter),
  };
}

function invalid(detail: string): Error {
  return refuseScim('scim_invalid_filter', detail);
}
