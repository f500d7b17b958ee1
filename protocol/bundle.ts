import * as v from 'valibot';
import { createHash } from 'node:crypto';
import { ZtnaError } from './errors.ts';
import { maxMessageBytes } from './message.ts';
import { bytes, natural } from './schema.ts';
import { verifyingKey, verifyStatement, type VerifyingKey } from './statement.ts';

/** Who a deployment's keys are, signed by its root. A device or connector pins the root's fingerprint. */
export const bundleSchema = v.strictObject({
  version: natural,
  root: bytes(32), // raw Ed25519 public key of the root
  nextRoot: v.nullable(bytes(32)),
  grantKeys: v.pipe(v.array(bytes(32)), v.minLength(1), v.maxLength(4)),
  rosterKeys: v.pipe(v.array(bytes(32)), v.minLength(1), v.maxLength(4)),
  authorities: v.pipe(
    v.array(v.pipe(v.string(), v.maxLength(8192))),
    v.minLength(1),
    v.maxLength(4),
  ), // CA certificates, PEM
  notAfterMs: natural,
});

/** What a verified bundle lets its holder check. Built only by `verifyBundle`. */
export interface Bundle {
  readonly __verified: unique symbol;
  readonly statement: string;
  readonly version: number;
  /** SHA-256 of the root's raw public key, lower-case hex: the tenant's id. */
  readonly rootId: string;
  readonly grantKeys: readonly VerifyingKey[];
  readonly rosterKeys: readonly VerifyingKey[];
  readonly authorities: readonly string[];
  readonly notAfterMs: number;
}

/** SHA-256 of a root's raw public key, in lower-case hex. */
export function rootIdOf(rawRoot: Uint8Array): string {
  return createHash('sha256').update(rawRoot).digest('hex');
}

/**
 * Verifies a bundle against the pinned root and the lowest version still accepted.
 * Throws ERR_STATEMENT_REFUSED for another root, a bad signature, an older version or one past its end.
 */
export function verifyBundle(
  statement: string,
  pinned: { readonly rootId: string; readonly minVersion: number },
  nowMs: number,
): Bundle {
  if (statement.length > 2 * maxMessageBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  // The payload names the root; it is believed only if it is the pinned one and signed this very text.
  const claimed = Buffer.from(statement.split('.')[2] ?? '', 'base64url');
  const rootText = /"root":"([A-Za-z0-9_-]{43})"/.exec(claimed.toString('latin1'))?.[1] ?? '';
  const root = Buffer.from(rootText, 'base64url');
  if (root.length !== 32 || rootIdOf(root) !== pinned.rootId)
    throw new ZtnaError('ERR_STATEMENT_REFUSED');
  const bundle = verifyStatement('bundle', bundleSchema, statement, [verifyingKey(root)]);
  if (
    bundle.root !== rootText ||
    bundle.version < pinned.minVersion ||
    !(nowMs < bundle.notAfterMs)
  ) {
    throw new ZtnaError('ERR_STATEMENT_REFUSED');
  }
  const toKey = (text: string) => verifyingKey(Buffer.from(text, 'base64url'));
  return {
    statement,
    version: bundle.version,
    rootId: pinned.rootId,
    grantKeys: bundle.grantKeys.map(toKey),
    rosterKeys: bundle.rosterKeys.map(toKey),
    authorities: bundle.authorities,
    notAfterMs: bundle.notAfterMs,
  } as unknown as Bundle;
}
