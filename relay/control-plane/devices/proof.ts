import { createHash } from 'node:crypto';
import {
  enrolmentProofSchema,
  renewalProofSchema,
  verifyingKey,
  verifyStatement,
  ZtnaError,
  type EnrolRequest,
} from '../../../protocol/index.ts';
import { checkNoiseKey, checkSigningKey } from './public-key.ts';

/**
 * Checks that whoever asks to enrol holds the Ed25519 key it names, and that this key vouches for the
 * certificate request, the X25519 key and the code's secret together.
 * Throws ERR_IDENTITY_KEY_REFUSED or ERR_STATEMENT_REFUSED.
 */
export function verifyEnrolmentProof(request: EnrolRequest): void {
  const signingKey = Buffer.from(request.signingKey, 'base64url');
  checkSigningKey(signingKey);
  checkNoiseKey(Buffer.from(request.noiseKey, 'base64url'));
  const proof = verifyStatement('enrolment', enrolmentProofSchema, request.proof, [
    verifyingKey(signingKey),
  ]);
  const isBound =
    proof.secretDigest === digest(Buffer.from(request.secret, 'base64url')) &&
    proof.requestDigest === digest(request.certificateRequest) &&
    proof.noiseKey === request.noiseKey;
  if (!isBound) throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'enrolment_proof' });
}

/** Reads whom a renewal claims to be from; believed only once `verifyRenewalProof` agrees. */
export function readRenewalClaim(proof: string): string | undefined {
  const payload = Buffer.from(proof.split('.')[2] ?? '', 'base64url').toString('latin1');
  return /^\{"id":"((?:dev|con|rel)_[0-9a-z]{26})"/.exec(payload)?.[1];
}

/** Checks a renewal against the key enrolled for `id`. Throws ERR_STATEMENT_REFUSED. */
export function verifyRenewalProof(
  request: { readonly certificateRequest: string; readonly proof: string },
  enrolled: { readonly id: string; readonly signingKey: string },
): void {
  const proof = verifyStatement('renewal', renewalProofSchema, request.proof, [
    verifyingKey(Buffer.from(enrolled.signingKey, 'base64url')),
  ]);
  if (proof.id !== enrolled.id || proof.requestDigest !== digest(request.certificateRequest)) {
    throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'renewal_proof' });
  }
}

function digest(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('base64url');
}
