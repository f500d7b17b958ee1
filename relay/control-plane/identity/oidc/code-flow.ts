import { createHash, randomBytes } from 'node:crypto';
import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  calculatePKCECodeChallenge,
  randomNonce,
  randomPKCECodeVerifier,
} from 'openid-client';
import * as v from 'valibot';
import { findOpenSignIn, type Proof } from '../index.ts';
import type { Services } from '../../services.ts';
import type { SignIn } from '../../store/index.ts';
import { refusal, toRefusal } from './failure.ts';
import type { OpenProvider } from './provider-book.ts';
import { redirectUri } from './settings.ts';
import { proofOf, readClaims } from './tokens.ts';

/** What a sign-in is at a provider with; sealed in its row, and taken from there once. */
const exchangeSchema = v.strictObject({
  kind: v.literal('code'),
  provider: v.string(),
  state: v.string(),
  nonce: v.string(),
  codeVerifier: v.string(),
  browser: v.string(), // SHA-256 of what the browser that began it holds
});

/** Sends a browser to a provider: to `url`, holding `browser`. */
export interface Begun {
  readonly url: URL;
  readonly browser: string;
}

/**
 * Begins the exchange with a provider for a sign-in that is open. Whatever was begun for it before counts no more. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED (`sign_in_over`, `provider_other`), ERR_RELAY_UNAVAILABLE (`provider_…`), or what else `ProviderBook.open` throws.
 */
export async function beginCode(services: Services, signIn: SignIn, name: string): Promise<Begun> {
  if (signIn.provider !== null && signIn.provider !== name) throw refusal('provider_other');
  const { store, sealer, settings } = services;
  const provider = await services.providers.open(name).catch((error: unknown) => {
    throw toRefusal(error);
  });
  const browser = randomBytes(32).toString('base64url');
  const exchange: v.InferOutput<typeof exchangeSchema> = {
    kind: 'code',
    provider: name,
    state: `${signIn.id}.${randomBytes(24).toString('base64url')}`,
    nonce: randomNonce(),
    codeVerifier: randomPKCECodeVerifier(),
    browser: digest(browser),
  };
  const { stepUpAcr, scopes, parameters } = provider.settings;
  const isStepUp = signIn.isStepUp === 1;
  const url = buildAuthorizationUrl(provider.config, {
    ...parameters,
    redirect_uri: redirectUri(settings.url, name),
    scope: scopes.join(' '),
    state: exchange.state,
    nonce: exchange.nonce,
    code_challenge: await calculatePKCECodeChallenge(exchange.codeVerifier),
    code_challenge_method: 'S256',
    // What the provider remembers for longer than a session may last is too old.
    max_age: isStepUp ? '0' : String(Math.ceil(settings.session.absoluteMs / 1_000)),
    ...(isStepUp ? { prompt: 'login' } : {}),
    ...(isStepUp && stepUpAcr.length > 0 ? { acr_values: stepUpAcr.join(' ') } : {}),
  });
  const noted = await store.write((tx) =>
    tx
      .updateTable('signIns')
      .set({ sealedState: sealer.seal(JSON.stringify(exchange), aboutState(signIn.id)) })
      .where('id', '=', signIn.id)
      .where('state', '=', 'begun')
      .returning('id')
      .executeTakeFirst(),
  );
  if (!noted) throw refusal('sign_in_over');
  return { url, browser };
}

/** A sign-in that a browser came back for, with what it is at the provider with: nobody else gets that any more. */
export interface TakenUp {
  readonly signIn: SignIn;
  readonly exchange: v.InferOutput<typeof exchangeSchema>;
}

/**
 * Finds out which sign-in a browser comes back for. Throws ERR_IDENTITY_SIGN_IN_REFUSED: `state_wrong`,
 * `callback_replayed`, `browser_other`; nothing has changed then. What is answered can be taken up once.
 */
export async function takeUp(
  services: Services,
  query: URLSearchParams,
  browser: string | undefined,
): Promise<TakenUp> {
  const { store, sealer, clock } = services;
  const state = query.get('state') ?? '';
  const [id = ''] = state.split('.');
  const row = await store.db
    .selectFrom('signIns')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst();
  if (!row) throw refusal('state_wrong');
  const signIn = await findOpenSignIn(store.db, id, clock.nowMs());
  const sealed = signIn?.sealedState ?? null;
  if (!signIn || sealed === null) {
    throw refusal(
      row.expiresAtMs <= clock.nowMs() && !signIn ? 'sign_in_over' : 'callback_replayed',
    );
  }
  const opened: unknown = JSON.parse(sealer.open(sealed, aboutState(id)));
  if (!v.is(exchangeSchema, opened) || opened.state !== state) throw refusal('state_wrong');
  if (browser === undefined || digest(browser) !== opened.browser) throw refusal('browser_other');
  const taken = await store.write((tx) =>
    tx
      .updateTable('signIns')
      .set({ sealedState: null })
      .where('id', '=', id)
      .where('state', '=', 'begun')
      .where('sealedState', '=', sealed)
      .returning('id')
      .executeTakeFirst(),
  );
  if (!taken) throw refusal('callback_replayed');
  return { signIn, exchange: opened };
}

/**
 * Exchanges the code that a browser brought for who signed in. Throws ERR_IDENTITY_SIGN_IN_REFUSED with what is wrong with it:
 * `provider_mixed_up`, `denied_by_provider`, `code_refused`, `issuer_wrong`, `audience_wrong`, `nonce_wrong`,
 * `algorithm_refused`, `signature_wrong`, `token_expired` and others, or ERR_RELAY_UNAVAILABLE (`provider_…`).
 */
export async function finishCode(
  services: Services,
  name: string,
  { signIn, exchange }: TakenUp,
  query: URLSearchParams,
): Promise<Proof> {
  if (exchange.provider !== name) throw refusal('provider_mixed_up');
  try {
    const provider = await services.providers.open(name);
    refuseMixUp(provider, query);
    const url = new URL(redirectUri(services.settings.url, name));
    url.search = query.toString();
    const tokens = await authorizationCodeGrant(provider.config, url, {
      pkceCodeVerifier: exchange.codeVerifier,
      expectedNonce: exchange.nonce,
      expectedState: exchange.state,
      idTokenExpected: true,
    });
    const claims = await readClaims(provider, tokens);
    const { proof } = await services.store.write((tx) =>
      proofOf(services, tx, provider, signIn, tokens, claims),
    );
    return proof;
  } catch (error) {
    throw toRefusal(error);
  }
}

/** Another provider's answer, brought here to have us tell its code to the wrong one. */
function refuseMixUp({ metadata }: OpenProvider, query: URLSearchParams): void {
  const issuer = query.get('iss');
  const isSaid = metadata.authorization_response_iss_parameter_supported === true;
  if (issuer === null ? isSaid : issuer !== metadata.issuer) throw refusal('provider_mixed_up');
}

export function aboutState(id: string): string {
  return `state ${id}`;
}

function digest(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}
