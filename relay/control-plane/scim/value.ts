import { isName } from '../../../protocol/index.ts';
import { refuseScim } from './refuse.ts';

const maxTextLength = 256;

/** Text of an attribute; null for one that is not there. Throws `scim_invalid_value`. */
export function textOf(attribute: string, value: unknown): string | null {
  if (value === undefined || value === null || value === '') return null;
  const isPlain =
    typeof value === 'string' && !/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(value);
  if (isPlain && value.length <= maxTextLength && value.isWellFormed()) return value;
  throw refuseScim('scim_invalid_value', `${attribute} must be text of at most ${maxTextLength}`);
}

/** True or false, which Microsoft Entra writes as text. Throws `scim_invalid_value`. */
export function truthOf(attribute: string, value: unknown): boolean {
  const text = typeof value === 'string' ? value.toLowerCase() : value;
  if (text === true || text === 'true') return true;
  if (text === false || text === 'false') return false;
  throw refuseScim('scim_invalid_value', `${attribute} must be true or false`);
}

/** Our name of a user. User names of SCIM are the same whatever the case of their letters. Throws `scim_invalid_value`. */
export function userNameOf(value: unknown): string {
  const name = textOf('userName', value)?.toLowerCase();
  if (name !== undefined && isName(name)) return name;
  throw refuseScim(
    'scim_invalid_value',
    'userName must be 1 to 64 of a-z, 0-9, ".", "_", "-" and "@", beginning and ending with a letter or digit',
  );
}

/**
 * Our name of a group, as policies write it: lower case, everything else than letters, digits, `.`, `_`, `@` as `-`.
 * Throws `scim_invalid_value` where nothing is left of it.
 */
export function groupNameOf(displayName: string): string {
  const name = displayName
    .toLowerCase()
    .replace(/[^a-z0-9._@]+/g, '-')
    .replace(/\.{2,}/g, '.')
    .replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '');
  if (isName(name)) return name;
  throw refuseScim(
    'scim_invalid_value',
    'displayName must give 1 to 64 of a-z, 0-9, ".", "_", "-" and "@"',
  );
}

/** The members of an object. Throws `scim_invalid_syntax`. */
export function membersOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    // Names of attributes are the same whatever their case.
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [name.toLowerCase(), member as unknown]),
    );
  }
  throw refuseScim('scim_invalid_syntax', `${what} must be an object`);
}
