import * as v from 'valibot';
import { idSchema } from './id.ts';
import { natural, reason } from './schema.ts';
import { verifyStatement, type VerifyingKey } from './statement.ts';

/**
 * The payload of a statement of kind `receipt`: whoever enforces a decision signs when it took effect. Instants are control
 * time; `lastByteAtMs` is when the last byte of the tunnel passed here, 0 when none did. `position` is that of the log entry that
 * cut it, null for a lease that ran out.
 */
export const cutReceiptSchema = v.strictObject({
  by: v.union([idSchema('connector'), idSchema('relay')]),
  tunnel: idSchema('tunnel'),
  generation: natural,
  action: v.picklist(['revoke', 'suspend', 'expire']),
  reason,
  incarnation: natural,
  position: v.nullable(natural),
  cutAtMs: natural,
  lastByteAtMs: natural,
  bytesUp: natural,
  bytesDown: natural,
});
export type CutReceipt = v.InferOutput<typeof cutReceiptSchema>;

/** Throws ERR_STATEMENT_REFUSED unless `key` has signed it. */
export function verifyReceipt(statement: string, key: VerifyingKey): CutReceipt {
  return verifyStatement('receipt', cutReceiptSchema, statement, [key]);
}
