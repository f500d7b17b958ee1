import { ZtnaError } from '../../../protocol/index.ts';

/** A value as every engine binds it, truth values as 0 and 1. Throws ERR_INTERNAL for what none can keep. */
export function toBindable(value: unknown): string | number | bigint | Uint8Array | null {
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (value === null || typeof value === 'string' || typeof value === 'bigint') return value;
  if (typeof value === 'number' && !Number.isNaN(value)) return value;
  if (value instanceof Uint8Array) return value;
  throw new ZtnaError('ERR_INTERNAL', { message: `the store cannot keep a ${typeof value}` });
}
