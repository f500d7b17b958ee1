import * as v from 'valibot';
import { parsePath, plainName, type Equality } from './filter.ts';
import { refuseScim } from './refuse.ts';

export const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';

/** Operations of one request, and values of one operation. */
const maxOperations = 1_000;

/** One operation on one attribute; what names none was taken apart into its members. */
export interface Change {
  readonly op: 'add' | 'replace' | 'remove';
  readonly attribute: string; // as `plainName` writes it
  readonly filter: readonly Equality[];
  readonly value: unknown;
}

// Microsoft Entra writes `Add` and `Replace`.
const operation = v.object({
  op: v.pipe(
    v.string(),
    v.transform((op) => op.toLowerCase()),
    v.picklist(['add', 'replace', 'remove']),
  ),
  path: v.optional(v.pipe(v.string(), v.minLength(1))),
  value: v.optional(v.unknown()),
});
const patch = v.object({
  schemas: v.array(v.string()),
  Operations: v.pipe(v.array(operation), v.minLength(1), v.maxLength(maxOperations)),
});

/** The changes that a PATCH asks for, in their order. Throws a refusal of SCIM. */
export function parsePatch(body: unknown): readonly Change[] {
  const parsed = v.safeParse(patch, body);
  if (!parsed.success || !parsed.output.schemas.includes(patchSchema)) {
    throw refuseScim('scim_invalid_syntax', `a PATCH is a message of ${patchSchema}`);
  }
  return parsed.output.Operations.flatMap(({ op, path, value }): Change[] => {
    if (path !== undefined) return [{ op, ...parsePath(path), value }];
    if (op === 'remove') throw refuseScim('scim_no_target', 'a removal names what it removes');
    // Okta names no path but gives an object; Entra's has dotted names in it.
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw refuseScim(
        'scim_invalid_syntax',
        'an operation without path has an object as its value',
      );
    }
    return Object.entries(value).map(([name, member]) => ({
      op,
      attribute: plainName(name),
      filter: [],
      value: member as unknown,
    }));
  });
}
