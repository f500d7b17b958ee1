import {
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  clockTolerance,
  customFetch,
  enableNonRepudiationChecks,
  None,
  type CustomFetch,
  type ServerMetadata,
} from 'openid-client';
import * as v from 'valibot';
import type { Logger } from '../../../../protocol/host/index.ts';
import { ZtnaError } from '../../../../protocol/index.ts';
import type { Sealer } from '../../authority/index.ts';
import { Throttle } from '../../listener/throttle.ts';
import { servedKeys, type KeyFinder } from '../../signals/keys.ts';
import { checkUrl, fetchOutside } from '../../signals/outside-fetch.ts';
import type { Store } from '../../store/index.ts';
import {
  aboutSecret,
  getProvider,
  type ProviderSettings,
  type StoredProvider,
} from './settings.ts';

/** How a provider signs tokens; neither nothing nor a shared secret is a signature. */
export const acceptedAlgorithms: readonly string[] = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
];

/** What providers say of themselves is asked for again after so long. */
const metadataKeptMs = 600_000;
/** After a failure nobody is asked for so long. */
const failurePauseMs = 2_000;
/** Clocks of providers may differ from ours. */
const clockToleranceS = 60;

const endpoint = v.pipe(v.string(), v.maxLength(2_048));
const strings = v.optional(v.array(v.string()));
const metadataSchema = v.looseObject({
  issuer: endpoint,
  authorization_endpoint: endpoint,
  token_endpoint: endpoint,
  jwks_uri: endpoint,
  userinfo_endpoint: v.optional(endpoint),
  device_authorization_endpoint: v.optional(endpoint),
  revocation_endpoint: v.optional(endpoint),
  end_session_endpoint: v.optional(endpoint),
  id_token_signing_alg_values_supported: strings,
  code_challenge_methods_supported: strings,
  token_endpoint_auth_methods_supported: strings,
});

/** A provider that can be asked. */
export interface OpenProvider extends StoredProvider {
  readonly config: Configuration;
  readonly metadata: ServerMetadata;
  /** Its keys, for tokens that it sends by itself. */
  readonly keys: KeyFinder;
}

interface Entry {
  readonly stamp: string;
  readonly untilMs: number;
  readonly opening: Promise<OpenProvider>;
}

/** The providers that users sign in at, with what each says of itself: read when needed, and kept for a while. */
export class ProviderBook {
  readonly #store: Store;
  readonly #sealer: Sealer;
  readonly #entries = new Map<string, Entry>();
  readonly #unreachable = new Set<string>();
  /** What providers tell of logouts, by address, before a signature was looked at. */
  readonly logoutThrottle = new Throttle({ burst: 240, perMinute: 1_200 });

  constructor(store: Store, sealer: Sealer) {
    this.#store = store;
    this.#sealer = sealer;
  }

  /** Notes whether a provider could be asked again, and says so when that has changed. */
  noteReachable(name: string, failure: string | undefined, logger: Logger): void {
    if (failure === undefined) {
      if (this.#unreachable.delete(name)) logger.info('provider_reachable', { provider: name });
    } else if (!this.#unreachable.has(name)) {
      this.#unreachable.add(name);
      logger.warn('provider_unreachable', { provider: name, reason: failure });
    }
  }

  /**
   * Throws ERR_CONFIG_NOT_FOUND (`provider_unknown`), ERR_RELAY_UNAVAILABLE where it cannot be asked, and
   * ERR_CONFIG_INVALID where what it says of itself will not do.
   */
  async open(name: string): Promise<OpenProvider> {
    const stored = await getProvider(this.#store.db, name);
    const stamp = `${stored.row.settingsJson} ${stored.row.sealedSecret ?? ''}`;
    const known = this.#entries.get(name);
    if (known?.stamp === stamp && performance.now() < known.untilMs) return known.opening;
    const { sealedSecret } = stored.row;
    const secret = sealedSecret && this.#sealer.open(sealedSecret, aboutSecret(name));
    const opening = discover(stored.settings, secret).then((found) => ({ ...stored, ...found }));
    this.#entries.set(name, { stamp, untilMs: performance.now() + metadataKeptMs, opening });
    opening.catch(() => {
      const untilMs = performance.now() + failurePauseMs;
      if (this.#entries.get(name)?.opening === opening) {
        this.#entries.set(name, { stamp, untilMs, opening });
      }
    });
    return opening;
  }
}

/**
 * Asks a provider what it says of itself. Throws ERR_RELAY_UNAVAILABLE where it cannot be asked, ERR_CONFIG_INVALID
 * (`issuer_wrong`, `provider_metadata`) where it is another one than named, or lacks what is needed.
 */
export async function discover(
  settings: ProviderSettings,
  secret: string | null,
): Promise<Pick<OpenProvider, 'config' | 'metadata' | 'keys'>> {
  const { issuer, clientId } = settings;
  const ask = fetchFor(settings);
  const url = `${bare(issuer)}/.well-known/openid-configuration`;
  const headers = { accept: 'application/json' };
  const answer = await ask(url, { method: 'GET', headers, body: undefined, redirect: 'manual' });
  const parsed = answer.status === 200 ? parseJson(await answer.text()) : undefined;
  const result = v.safeParse(metadataSchema, parsed);
  if (!result.success) throw unfit(`${url} does not describe an OpenID Provider`);
  const said = result.output;
  if (bare(said.issuer) !== bare(issuer)) {
    throw unfit(`${url} is of the issuer ${said.issuer.slice(0, 256)}`, 'issuer_wrong');
  }
  const needed = [said.authorization_endpoint, said.token_endpoint, said.jwks_uri];
  const more = [
    ...[said.userinfo_endpoint, said.device_authorization_endpoint],
    ...[said.revocation_endpoint, said.end_session_endpoint],
  ];
  for (const one of [...needed, ...more]) if (one !== undefined) checkUrl(one);
  const algorithms = (said.id_token_signing_alg_values_supported ?? ['RS256']).filter((one) =>
    acceptedAlgorithms.includes(one),
  );
  if (algorithms.length === 0) throw unfit(`${issuer} signs no tokens in a way that counts`);
  if (said.code_challenge_methods_supported?.includes('S256') === false) {
    throw unfit(`${issuer} does not take PKCE with S256`);
  }
  const metadata: ServerMetadata = {
    ...said,
    id_token_signing_alg_values_supported: algorithms,
  } as ServerMetadata;
  const methods = said.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
  const authentication =
    secret === null
      ? None()
      : methods.includes('client_secret_basic')
        ? ClientSecretBasic(secret)
        : ClientSecretPost(secret);
  const config = new Configuration(
    metadata,
    clientId,
    { [clockTolerance]: clockToleranceS },
    authentication,
  );
  config[customFetch] = ask;
  enableNonRepudiationChecks(config); // the signature counts, not only where the token came from
  const { allowPrivate, ca } = settings;
  return { config, metadata, keys: servedKeys({ url: said.jwks_uri, allowPrivate, ca }) };
}

/** Throws ERR_CONFIG_INVALID where a provider's keys cannot be read as such. */
export async function checkKeys(
  settings: ProviderSettings,
  { jwks_uri: url = '' }: ServerMetadata,
): Promise<void> {
  const headers = { accept: 'application/json' };
  const init = { method: 'GET', headers, body: undefined, redirect: 'manual' } as const;
  const answer = await fetchFor(settings)(url, init);
  const schema = v.looseObject({ keys: v.pipe(v.array(v.looseObject({})), v.minLength(1)) });
  const parsed = answer.status === 200 ? parseJson(await answer.text()) : undefined;
  if (!v.is(schema, parsed)) throw unfit(`${url} holds no keys`);
}

/** How a provider is asked: over TLS, where it may be, in a bounded time, for a bounded answer, and never elsewhere. */
export function fetchFor({ allowPrivate, ca }: ProviderSettings): CustomFetch {
  return async (url, { method, headers, body }) => {
    const isPost = method === 'POST';
    const answer = await fetchOutside({
      url,
      method: isPost ? 'POST' : 'GET',
      headers,
      ...(isPost ? { body: body instanceof URLSearchParams ? body.toString() : textOf(body) } : {}),
      allowPrivate,
      ca,
    });
    const { status, text, contentType } = answer;
    if (status >= 300 && status <= 399) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
        message: `${new URL(url).host} sends elsewhere, which is not followed`,
        reason: 'outside_redirects',
      });
    }
    const isEmpty = status === 204 || status === 205;
    return new Response(isEmpty ? null : text, {
      status: status >= 200 && status <= 599 ? status : 502,
      headers: { 'content-type': contentType },
    });
  };
}

/** Some end with a slash, which people leave out; what tokens say is compared to what the provider itself says. */
function bare(issuer: string): string {
  return issuer.replace(/\/$/, '');
}

function textOf(body: unknown): string {
  return typeof body === 'string' ? body : '';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unfit(message: string, reason = 'provider_metadata'): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', { message, reason });
}
