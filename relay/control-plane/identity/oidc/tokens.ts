import {
  fetchUserInfo,
  type TokenEndpointResponse,
  type TokenEndpointResponseHelpers,
} from 'openid-client';
import type { Proof } from '../sign-ins.ts';
import type { Services } from '../../services.ts';
import type { SignIn, Tx, User } from '../../store/index.ts';
import { acrOf, authenticatedAtMs, groupsOf, methodsOf, readClaim, type Claims } from './claims.ts';
import { refusal } from './failure.ts';
import type { OpenProvider } from './provider-book.ts';
import { resolveUser, setProvidedGroups, sourceOf } from './users.ts';

/** What a provider's token endpoint answered, verified. */
export type Tokens = TokenEndpointResponse & TokenEndpointResponseHelpers;

/** A sign-in of which a provider does not say when it was counts as this old. */
const unknownAgeMs = 30 * 86_400_000;
/** Clocks of providers may be behind ours. */
const behindMs = 60_000;

/** Who the tokens are about, with what the provider tells apart from them where they lack it. Throws as `toRefusal` explains. */
export async function readClaims(
  { config, metadata, settings }: OpenProvider,
  tokens: Tokens,
): Promise<Claims & { readonly sub: string }> {
  const said = tokens.claims();
  if (!said) throw refusal('token_malformed');
  const { userClaim, groupsClaim, allowedDomains } = settings;
  const isDomainAsked = allowedDomains.length > 0;
  const wanted = [
    ...[userClaim, groupsClaim],
    ...(isDomainAsked ? ['email', 'email_verified'] : []),
  ];
  const isComplete = wanted.every((one) => one === null || readClaim(said, one) !== undefined);
  if (isComplete || metadata.userinfo_endpoint === undefined) return said;
  const more = await fetchUserInfo(config, tokens.access_token, said.sub);
  return { ...more, ...said };
}

/**
 * What the provider says of a person now, as a refresh of the sign-in tells: not every provider gives an ID token then, and one
 * that does not is asked apart from it. Undefined where it tells nothing. Throws as `readClaims`.
 */
export async function readClaimsAgain(
  provider: OpenProvider,
  tokens: Tokens,
  subject: string,
): Promise<(Claims & { readonly sub: string }) | undefined> {
  if (tokens.claims() !== undefined) return readClaims(provider, tokens);
  const { config, metadata } = provider;
  if (metadata.userinfo_endpoint === undefined) return undefined;
  return fetchUserInfo(config, tokens.access_token, subject);
}

/**
 * Who signed in, as a user of ours and with the groups that the provider has that user in. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED, among others `not_fresh` where a step-up was asked for and something older came.
 */
export async function proofOf(
  services: Services,
  tx: Tx,
  provider: OpenProvider,
  signIn: Pick<SignIn, 'isStepUp' | 'createdAtMs'>,
  tokens: Tokens,
  claims: Claims & { readonly sub: string },
): Promise<{ readonly proof: Proof; readonly user: User }> {
  const { name, settings } = provider;
  const nowMs = services.clock.nowMs();
  // It may have been removed while it was asked: nobody becomes its user any more.
  const isThere = await tx
    .selectFrom('providers')
    .select('name')
    .where('name', '=', name)
    .executeTakeFirst();
  if (!isThere) throw refusal('provider_unknown');
  const atMs = authenticatedAtMs(claims);
  const oldestMs = nowMs - services.settings.session.absoluteMs - behindMs;
  if (atMs !== null && atMs < oldestMs) throw refusal('not_fresh'); // whatever it was asked for
  if (signIn.isStepUp === 1 && (atMs === null || atMs < signIn.createdAtMs - behindMs)) {
    throw refusal('not_fresh');
  }
  const groups = groupsOf(claims, settings);
  const user = await resolveUser(services, tx, provider, claims);
  if (groups !== null) await setProvidedGroups(services, tx, user.id, sourceOf(name), groups);
  const { sid } = claims;
  return {
    user,
    proof: {
      user: user.id,
      provider: name,
      methods: methodsOf(claims, settings),
      acr: acrOf(claims),
      authenticatedAtMs: atMs === null ? nowMs - unknownAgeMs : Math.min(atMs, nowMs),
      grant: {
        subject: claims.sub,
        sid: typeof sid === 'string' && sid.length <= 256 ? sid : null,
        refreshToken: tokens.refresh_token ?? null,
        idToken: tokens.id_token ?? '',
        recheckMs: settings.recheckMs,
      },
    },
  };
}
