import { problemAt } from './source.ts';
import { passingReads, type PassingRead } from './reads-time.ts';
import type { Cedar } from './cedar.ts';
import type { PolicyProblem, PolicyText } from './source.ts';
import type { DetailedError, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';

/** A policy that passed validation, as plain data. */
export interface CheckedPolicy {
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly effect: 'permit' | 'forbid';
  readonly text: string;
  /** Its `@name("…")`, for people. */
  readonly name: string | null;
  /** The same as `text`, taken apart by Cedar. */
  readonly json: PolicyJson;
  /** The one app, or site, that its scope names; null: any. */
  readonly app: string | null;
  readonly site: string | null;
  /** What its answer may change by with time alone. */
  readonly passingReads: readonly PassingRead[];
}

export interface ValidationResult {
  readonly policies: readonly CheckedPolicy[];
  readonly problems: readonly PolicyProblem[];
  readonly warnings: readonly PolicyProblem[];
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9._:#-]{0,63}$/;

/** Parses and validates policies. A trap in Cedar escapes as the exception it is: run this where that is harmless. */
export function validatePolicies(
  cedar: Cedar,
  schema: string,
  texts: readonly PolicyText[],
  sources: Readonly<Record<string, string>>,
): ValidationResult {
  const problems: PolicyProblem[] = [];
  const warnings: PolicyProblem[] = [];
  const policies = new Map<string, CheckedPolicy>();
  const origins = new Map<string, PolicyText>();
  const counts = countByFile(texts);
  const ordinals = new Map<string, number>();
  const report = (source: PolicyText, error: DetailedError, into: PolicyProblem[]): void => {
    into.push(toProblem(source, sources[source.file] ?? '', error));
    for (const related of error.related ?? []) report(source, related, into);
  };

  for (const source of texts) {
    const ordinal = (ordinals.get(source.file) ?? 0) + 1;
    ordinals.set(source.file, ordinal);
    const parsed = cedar.policyToJson(source.text);
    if (parsed.type === 'failure') {
      for (const error of parsed.errors) report(source, error, problems);
      continue;
    }
    const base = source.file.replace(/\.cedar$/, '');
    const fallback = counts.get(source.file) === 1 ? base : `${base}#${ordinal}`;
    const id = parsed.json.annotations?.['id'] ?? fallback;
    const place = problemAt(source.file, sources[source.file] ?? '', source.offset, '');
    const known = policies.get(id);
    if (!idPattern.test(id)) {
      problems.push({
        ...place,
        message: `${JSON.stringify(id)} is no policy id`,
        hint: 'use letters, digits and . _ : - in @id("…")',
      });
    } else if (known) {
      problems.push({
        ...place,
        message: `there are two policies with the id ${id}`,
        hint: `the other is in ${known.file}, line ${known.line}`,
      });
    } else {
      policies.set(id, {
        id,
        file: source.file,
        line: place.line,
        effect: parsed.json.effect,
        text: source.text,
        name: parsed.json.annotations?.['name'] ?? null,
        json: parsed.json,
        ...scopeOf(parsed.json),
        passingReads: passingReads(parsed.json),
      });
      origins.set(id, source);
    }
  }
  if (problems.length > 0) return { policies: [], problems, warnings };

  const staticPolicies = Object.fromEntries([...policies].map(([id, { text }]) => [id, text]));
  const answer = cedar.validate({
    schema,
    policies: { staticPolicies },
    validationSettings: { mode: 'strict' },
  });
  if (answer.type === 'failure') {
    const message = answer.errors[0]?.message ?? 'Cedar could not validate these policies';
    return { policies: [], problems: [problemAt('', '', 0, message)], warnings };
  }
  for (const [found, into] of [
    [answer.validationErrors, problems],
    [answer.validationWarnings, warnings],
  ] as const) {
    for (const { policyId, error } of found) {
      const origin = origins.get(policyId);
      if (origin) report(origin, error, into);
    }
  }
  return { policies: [...policies.values()], problems, warnings };
}

function countByFile(texts: readonly PolicyText[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { file } of texts) counts.set(file, (counts.get(file) ?? 0) + 1);
  return counts;
}

/** Cedar counts bytes from the start of the policy; people count lines of the file. */
function toProblem(source: PolicyText, fileText: string, error: DetailedError): PolicyProblem {
  const [place] = error.sourceLocations ?? [];
  const bytes = Buffer.from(source.text).subarray(0, place?.start ?? 0);
  const message = error.message.replace(/^for policy `[^`]*`, /, '');
  const hint = error.help ?? place?.label ?? null;
  return problemAt(source.file, fileText, source.offset + bytes.toString().length, message, hint);
}

/** What the head of a policy demands of the resource. */
function scopeOf({ resource }: PolicyJson): Pick<CheckedPolicy, 'app' | 'site'> {
  const target = resource.op === 'is' ? resource.in : resource.op === 'All' ? undefined : resource;
  if (!target || !('entity' in target)) return { app: null, site: null };
  const { type, id } = '__entity' in target.entity ? target.entity.__entity : target.entity;
  if (type === 'App') return { app: id, site: null };
  if (type === 'Site') return { app: null, site: id };
  return { app: null, site: null };
}
