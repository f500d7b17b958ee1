import { createHash, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { exportJWK } from 'jose';
import { Provider, type ClientMetadata, type Configuration } from 'oidc-provider';
import { TestCa } from './pki.ts';
import { ScriptedBrowser, type Visit } from './scripted-browser.ts';

/** What a provider says of a person; how it was signed in comes from `amr` and `acr`. */
export interface Person {
  readonly claims: Readonly<Record<string, unknown>>;
  readonly amr?: readonly string[];
  readonly acr?: string;
}

export interface OidcServerOptions {
  /** Where the relay has its people come back to: `https://RELAY/oidc/NAME/callback`. More can be added later. */
  readonly redirectUris?: readonly string[];
  /** Where it tells the relay of logouts: `https://RELAY/oidc/NAME/logout`; nowhere unless given. */
  readonly logoutUri?: string;
  readonly people?: Readonly<Record<string, Person>>;
  /** Claims of an ID token beyond `sub` and those of a session. */
  readonly claims?: readonly string[];
  readonly clients?: readonly ClientMetadata[];
  readonly configuration?: Configuration;
}

/** Header by which a scripted browser says who sits at it; without it, it is `person` of the server. */
export const personHeader = 'x-test-person';

/**
 * A real OpenID Provider on loopback, over TLS: code with PKCE, device code, refresh with rotation, revocation, logout. Whoever
 * comes to its sign-in page is signed in at once, as the person that the browser or the test names.
 */
export class OidcServer {
  readonly caPem: string;
  readonly clientId = 'ztna';
  readonly clientSecret = 'a-secret-of-the-test';
  /** By subject. Who is removed is a disabled account: refreshes are refused. */
  readonly people: Map<string, Person>;
  readonly redirectUris: string[];
  /** Who a browser without a word of its own is. */
  person: string;
  /** While true, nobody gets an answer. */
  isDown = false;
  readonly requests: string[] = [];
  readonly #server: Server;
  #provider!: Provider;

  private constructor(server: Server, caPem: string, options: OidcServerOptions) {
    this.#server = server;
    this.caPem = caPem;
    this.people = new Map(
      Object.entries(
        options.people ?? {
          alice: { claims: { email: 'alice@example.com', email_verified: true } },
        },
      ),
    );
    this.person = [...this.people.keys()][0] ?? 'alice';
    this.redirectUris = [...(options.redirectUris ?? ['https://localhost/oidc/idp/callback'])];
  }

  static async start(options: OidcServerOptions = {}): Promise<OidcServer> {
    const ca = new TestCa();
    const { keyPem, certificatePem } = ca.issue();
    const server = createServer({ key: keyPem, cert: certificatePem });
    const own = new OidcServer(server, ca.certificatePem, options);
    server.on('tlsClientError', () => undefined);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await own.#open(options);
    return own;
  }

  get issuer(): string {
    return `https://localhost:${String((this.#server.address() as AddressInfo).port)}`;
  }

  /** Writes the certificate of its authority into `dir`, and answers where. */
  caFile(dir: string): string {
    const digest = createHash('sha256').update(this.caPem).digest('hex').slice(0, 8);
    const path = join(dir, `oidc-ca-${digest}.pem`);
    writeFileSync(path, this.caPem);
    return path;
  }

  /** A browser with this person at it. */
  browserOf(person: string): ScriptedBrowser {
    return new ScriptedBrowser({ [personHeader]: person });
  }

  /** Lets a person confirm a device code, at the URL that the machine without a browser shows. */
  async confirmDevice(url: string, person: string): Promise<void> {
    const browser = this.browserOf(person);
    await this.#submit(browser, await browser.follow(url));
  }

  /** Lets a person end the provider's own session, at the URL that signing out answers. */
  async logOut(url: string, browser: ScriptedBrowser): Promise<void> {
    await this.#submit(browser, await browser.follow(url));
  }

  /** Says yes to whatever the provider's own pages ask. */
  async #submit(browser: ScriptedBrowser, first: Visit): Promise<void> {
    let visit = first;
    for (let count = 0; count < 4; count++) {
      const action = /<form[^>]*action="([^"]+)"/.exec(visit.text)?.[1];
      if (action === undefined) return;
      const fields = [...visit.text.matchAll(/<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"/g)];
      const form = Object.fromEntries(fields.map(([, name = '', value = '']) => [name, value]));
      if (visit.text.includes('op.deviceConfirmForm')) form['confirm'] = 'yes';
      if (visit.text.includes('op.logoutForm')) form['logout'] = 'yes';
      visit = await browser.follow(new URL(action, visit.url), undefined, form);
    }
  }

  /** Resolves once it was asked so: `POST /token/revocation`. */
  async untilAsked(request: string): Promise<void> {
    while (!this.requests.includes(request)) await once(this.#server, 'request');
  }

  /** The moment of the next answer that refuses a token; by `performance.now()`. */
  refusedAtMs(): Promise<number> {
    return new Promise((resolve) => {
      this.#provider.once('grant.error', () => {
        resolve(performance.now());
      });
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #open(options: OidcServerOptions): Promise<void> {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const jwk = { ...(await exportJWK(privateKey)), use: 'sig', alg: 'RS256', kid: 'k1' };
    const claims = [
      ...['sub', 'email', 'email_verified', 'preferred_username', 'name', 'groups', 'sid', 'amr'],
      ...['realm_access', 'hd', 'acr', 'auth_time', ...(options.claims ?? [])],
    ];
    this.#provider = new Provider(this.issuer, {
      clients: [
        ...(options.clients ?? [
          {
            client_id: this.clientId,
            client_secret: this.clientSecret,
            redirect_uris: this.redirectUris,
            grant_types: [
              'authorization_code',
              'refresh_token',
              'urn:ietf:params:oauth:grant-type:device_code',
            ],
            response_types: ['code'],
            ...(options.logoutUri === undefined
              ? {}
              : {
                  backchannel_logout_uri: options.logoutUri,
                  backchannel_logout_session_required: true,
                }),
          },
        ]),
      ],
      jwks: { keys: [jwk] },
      cookies: { keys: ['a key of the test'] },
      claims: { openid: claims, email: [], profile: [] },
      conformIdTokenClaims: false,
      acrValues: ['urn:example:strong', 'phr', '1'],
      pkce: { required: () => true },
      rotateRefreshToken: true,
      ttl: {
        Interaction: 600,
        Grant: 86_400,
        Session: 86_400,
        RefreshToken: 86_400,
        IdToken: 600,
        AccessToken: 600,
        DeviceCode: 600,
      },
      issueRefreshToken: () => Promise.resolve(true),
      scopes: ['openid', 'offline_access', 'email', 'profile', 'groups'],
      features: {
        devInteractions: { enabled: false },
        deviceFlow: { enabled: true },
        revocation: { enabled: true },
        backchannelLogout: { enabled: true },
        rpInitiatedLogout: { enabled: true },
      },
      findAccount: (_ctx, sub) => {
        const person = this.people.get(sub);
        if (!person) return undefined;
        return { accountId: sub, claims: () => ({ sub, ...person.claims }) };
      },
      loadExistingGrant: async (ctx) => {
        const { client, session } = ctx.oidc;
        if (!client || session?.accountId === undefined) return undefined;
        const grant = new this.#provider.Grant({
          clientId: client.clientId,
          accountId: session.accountId,
        });
        grant.addOIDCScope('openid offline_access email profile groups');
        await grant.save();
        return grant;
      },
      interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
      fetch: (url, request) => postUnchecked(url as string | URL, request?.body as string),
    });
    const answer = this.#provider.callback();
    this.#server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.requests.push(`${request.method ?? ''} ${request.url ?? ''}`);
      if (this.isDown) request.destroy();
      else if (request.url?.startsWith('/interaction/') === true)
        void this.#interact(request, response);
      else void answer(request, response);
    });
  }

  /** The sign-in page: who came is signed in. */
  async #interact(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const named = request.headers[personHeader];
    const accountId = typeof named === 'string' ? named : this.person;
    const person = this.people.get(accountId);
    const { prompt } = await this.#provider.interactionDetails(request, response);
    const acr = person?.acr === undefined ? {} : { acr: person.acr };
    const result = !person
      ? { error: 'access_denied', error_description: 'nobody of that name' }
      : prompt.name === 'consent'
        ? { consent: {} }
        : { login: { accountId, ...acr, ...(person.amr ? { amr: [...person.amr] } : {}) } };
    await this.#provider.interactionFinished(request, response, result, {
      mergeWithLastSubmission: true,
    });
  }
}

/** The provider's own messages to the relay, whose certificate is of an authority that nobody knows. */
async function postUnchecked(url: string | URL, body: string): Promise<Response> {
  const form = Object.fromEntries(new URLSearchParams(body));
  const { status } = await new ScriptedBrowser().ask(url, form);
  return new Response(null, { status });
}
