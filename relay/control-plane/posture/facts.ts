import { unknownPosture, versionBuild, versionNumber, type PostureFacts } from '../policy/index.ts';
import { builtInChecks } from '../../../protocol/index.ts';
import type { HeardPosture } from './book.ts';

/**
 * What was heard in the words that policies use, as of `nowMs`. From `endMs` on it is as if nothing had been heard; checks
 * that nobody asked for are left out, and those that were not told are unknown.
 */
export function toPostureFacts(
  heard: (HeardPosture & { readonly endMs: number }) | null,
  extraChecks: readonly string[],
  nowMs: number,
): PostureFacts {
  const unknown = unknownPosture(extraChecks);
  const ageSeconds = postureAgeSeconds(heard, nowMs);
  if (!heard || ageSeconds === null) return unknown;
  const { facts } = heard;
  const known: readonly string[] = [...builtInChecks, ...extraChecks];
  const checks = facts.checks.filter(([name]) => known.includes(name));
  return {
    ...unknown,
    ...Object.fromEntries(checks.map(([name, result]) => [name, result])),
    os_version: facts.osVersion || 'unknown',
    os_version_number: versionNumber(facts.osVersion),
    os_build: versionBuild(facts.osVersion),
    client_version: facts.clientVersion || 'unknown',
    client_version_number: versionNumber(facts.clientVersion),
    age_seconds: ageSeconds,
  };
}

/** How old what was heard is; null when it counts for nothing. */
export function postureAgeSeconds(
  heard: (HeardPosture & { readonly endMs: number }) | null,
  nowMs: number,
): number | null {
  if (!heard || nowMs >= heard.endMs) return null;
  return Math.max(0, Math.floor((nowMs - heard.atMs) / 1_000));
}
