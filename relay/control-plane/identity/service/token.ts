import { decodeJwt, decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose';
import { ZtnaError } from '../../../../protocol/index.ts';
import { readClaim } from '../oidc/claims.ts';
import type { TokenSettings } from './credential.ts';
import { issuerKeys } from './issuer-keys.ts';

/** How tokens may be signed; neither nothing nor a shared secret is a signature. */
const algorithms = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];

/** Types of tokens that say who somebody is; those of events and of logouts are signed by the same keys. */
const types: readonly (string | undefined)[] = [undefined, 'jwt', 'at+jwt', 'application/at+jwt'];

/** A token that holds for longer is none of a workload's. */
const longestLifeS = 86_400;
/** Clocks of issuers may differ from ours. */
const clockToleranceS = 60;

/** The issuer that a token names, before anything of it is believed; undefined for what is no token. */
export function namedIssuer(token: string): string | undefined {
  try {
    return decodeJwt(token).iss;
  } catch {
    return undefined;
  }
}

/**
 * Verifies a token of an issuer that is trusted for a service. Throws ERR_IDENTITY_SIGN_IN_REFUSED: `token_malformed`,
 * `token_type`, `token_algorithm`, `token_signature`, `token_issuer`, `token_audience`, `token_expired`,
 * `token_early`, `token_lasting`, `token_claims`; ERR_RELAY_UNAVAILABLE while the issuer's keys cannot be read.
 */
export async function verifyServiceToken(
  token: string,
  settings: TokenSettings,
  nowMs: number,
): Promise<JWTPayload> {
  checkHeader(token);
  const payload = await verifySignature(token, settings, nowMs);
  const { iat = 0, exp = 0 } = payload;
  if (exp - iat > longestLifeS) throw refused('token_lasting');
  if (iat > nowMs / 1_000 + clockToleranceS) throw refused('token_early');
  for (const [name, wanted] of Object.entries(settings.claims)) {
    const claimed = readClaim(payload, name);
    const all: readonly unknown[] = Array.isArray(claimed) ? claimed : [claimed];
    const isMet = all.some(
      (one) => ['string', 'number', 'boolean'].includes(typeof one) && String(one) === wanted,
    );
    if (!isMet) throw refused('token_claims', `its ${name} is not ${wanted}`);
  }
  return payload;
}

function checkHeader(token: string): void {
  let header;
  try {
    header = decodeProtectedHeader(token);
  } catch (cause) {
    throw refused('token_malformed', undefined, cause);
  }
  if (!types.includes(header.typ?.toLowerCase())) throw refused('token_type');
  if (!algorithms.includes(header.alg ?? '')) throw refused('token_algorithm');
}

async function verifySignature(
  token: string,
  settings: TokenSettings,
  nowMs: number,
): Promise<JWTPayload> {
  const { issuer, audience } = settings;
  const keys = await issuerKeys(settings);
  try {
    const { payload } = await jwtVerify(token, keys, {
      algorithms,
      issuer,
      audience,
      currentDate: new Date(nowMs),
      clockTolerance: clockToleranceS,
      requiredClaims: ['exp', 'iat', 'iss', 'aud'],
    });
    return payload;
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw refused(reasonOf(cause), undefined, cause);
  }
}

function reasonOf(cause: unknown): string {
  if (cause instanceof errors.JWTExpired) return 'token_expired';
  if (cause instanceof errors.JWTClaimValidationFailed) {
    const { claim } = cause;
    if (claim === 'iss') return 'token_issuer';
    if (claim === 'aud') return 'token_audience';
    return claim === 'nbf' ? 'token_early' : 'token_expired'; // a missing or odd time counts as past
  }
  if (
    cause instanceof errors.JWSSignatureVerificationFailed ||
    cause instanceof errors.JWKSNoMatchingKey ||
    cause instanceof errors.JWKSMultipleMatchingKeys ||
    cause instanceof errors.JOSENotSupported ||
    cause instanceof errors.JOSEAlgNotAllowed ||
    cause instanceof TypeError // a key that is too small, or not for this
  ) {
    return 'token_signature';
  }
  return 'token_malformed';
}

function refused(reason: string, message?: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
    reason,
    ...(message === undefined ? {} : { message: `the token was refused: ${message}` }),
    cause,
  });
}
