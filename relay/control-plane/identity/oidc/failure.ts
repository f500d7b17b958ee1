import { AuthorizationResponseError, ClientError, ResponseBodyError } from 'openid-client';
import { ZtnaError } from '../../../../protocol/index.ts';

/** What a provider answers us ourselves: about the code, or about who we are to it. */
const bodyReasons: Readonly<Record<string, string>> = {
  invalid_grant: 'code_refused',
  invalid_client: 'client_refused',
  unauthorized_client: 'client_refused',
};

/** What a provider sends a person back with who may not, or will not. */
const denials: readonly string[] = ['access_denied', 'login_required', 'interaction_required'];

/** What went wrong with a provider, as a refusal of ours with a reason of its own. */
export function toRefusal(error: unknown): ZtnaError {
  const chain = chainOf(error);
  const own = chain.find((one) => one instanceof ZtnaError);
  if (own) return ofOwn(own);
  for (const one of chain) {
    if (one instanceof ResponseBodyError) {
      return refusal(bodyReasons[one.error] ?? 'provider_error', error);
    }
    if (one instanceof AuthorizationResponseError) {
      const isDenied = denials.includes(one.error);
      return refusal(isDenied ? 'denied_by_provider' : 'provider_error', error);
    }
  }
  return refusal(reasonOf(chain), error);
}

function ofOwn(error: ZtnaError): ZtnaError {
  const { reason } = error;
  if (reason?.startsWith('outside_') !== true) return error;
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: error.message,
    reason: reason.replace('outside_', 'provider_'),
    cause: error,
  });
}

export function refusal(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason, cause });
}

/** Why a token or an answer was not taken, by the library's codes and what it says of the claim. */
function reasonOf(chain: readonly unknown[]): string {
  const [code = ''] = chain.flatMap((one) => (one instanceof ClientError ? [one.code ?? ''] : []));
  const details = chain.find(isDetails) ?? {};
  const { claim, attribute } = details;
  switch (code) {
    case 'OAUTH_JWT_CLAIM_COMPARISON_FAILED':
      return (typeof claim === 'string' && claimReasons[claim]) || 'token_refused';
    case 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED':
      return claim === 'auth_time' ? 'not_fresh' : 'token_expired';
    case 'OAUTH_KEY_SELECTION_FAILED':
      return 'key_unknown';
    case 'OAUTH_UNSUPPORTED_OPERATION':
      return 'algorithm_refused';
    case 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED':
      return attribute === 'sub' ? 'subject_other' : 'issuer_wrong';
    case 'OAUTH_INVALID_RESPONSE':
      if ('header' in details && 'expected' in details) return 'algorithm_refused';
      if ('key' in details && 'signature' in details) return 'signature_wrong';
      return 'token_malformed';
    default:
      return 'provider_answer_malformed';
  }
}

const claimReasons: Readonly<Record<string, string>> = {
  iss: 'issuer_wrong',
  aud: 'audience_wrong',
  azp: 'audience_wrong',
  nonce: 'nonce_wrong',
  at_hash: 'token_refused',
};

function isDetails(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !(value instanceof Error);
}

/** An error and what it was caused by. */
function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = [];
  let at: unknown = error;
  while (at !== undefined && at !== null && chain.length < 8) {
    chain.push(at);
    at = at instanceof Error ? at.cause : undefined;
  }
  return chain;
}
