import { parseDurationMs } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';

/** A moment to come: a date, a date and time with its zone, or a duration from now (`8h`). */
export function parseMoment(text: string, nowMs: number): number {
  return parseTime(text, (durationMs) => nowMs + durationMs);
}

/** A moment gone by: a date, a date and time with its zone, or a duration ago (`24h`). */
export function parsePastMoment(text: string, nowMs: number): number {
  return parseTime(text, (durationMs) => nowMs - durationMs);
}

function parseTime(text: string, relative: (durationMs: number) => number): number {
  if (/^\d+(?:ms|[smhd])$/.test(text)) return relative(parseDurationMs(text));
  const isDate = /^\d{4}-\d{2}-\d{2}$/.test(text);
  const isInstant =
    /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})$/.test(text);
  const atMs = isDate || isInstant ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(atMs)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `not a time: ${text}`,
      hint: 'write 2026-12-31, 2026-12-31T18:00:00Z or a duration such as 8h',
    });
  }
  return atMs;
}

/** `K=V` pairs as an object. Throws ERR_CONFIG_USAGE. */
export function parseLabels(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `not a label: ${pair}`,
          hint: 'write --label key=value',
        });
      }
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
