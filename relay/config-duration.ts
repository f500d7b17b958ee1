import { parseDurationMs } from '../protocol/host/index.ts';
import type { ConfigReader, ConfigValue } from './config-reader.ts';

/** A duration of the configuration in milliseconds, within bounds; `fallbackMs` where nothing is said. */
export function readDuration(
  reader: ConfigReader,
  value: ConfigValue | undefined,
  fallbackMs: number,
  leastMs: number,
  mostMs: number,
): number {
  if (!value) return fallbackMs;
  let ms: number;
  try {
    ms = parseDurationMs(reader.text(value));
  } catch {
    throw reader.invalid(value, 'must be a duration', 'write it as 250ms, 20s, 5m, 24h or 400d');
  }
  if (ms < leastMs || ms > mostMs) {
    throw reader.invalid(value, `must lie between ${leastMs / 1_000}s and ${mostMs / 1_000}s`);
  }
  return ms;
}
