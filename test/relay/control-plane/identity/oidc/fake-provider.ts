import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { SignJWT, UnsecuredJWT, type JWTPayload } from 'jose';
import { keySet, OutsideServer, sharedKey } from '../../signals/transmitter.ts';

export interface IdTokenWishes {
  readonly claims?: JWTPayload;
  readonly alg?: string;
  readonly kid?: string;
  readonly key?: KeyObject | Uint8Array;
}

/** A provider that tells whatever a test wants it to, on loopback over TLS. */
export class FakeProvider {
  readonly #server: OutsideServer;
  /** What the ID token is made from; `nonce` is of the request unless a test says otherwise. */
  wishes: IdTokenWishes = {};
  /** What `/.well-known/openid-configuration` says besides. */
  metadata: Readonly<Record<string, unknown>> = {};
  userInfo: Readonly<Record<string, unknown>> = {};
  /** In place of an answer, by path. */
  readonly instead = new Map<
    string,
    (request: IncomingMessage, response: ServerResponse, body: string) => void
  >();
  nonce = '';
  readonly #subject: string;

  private constructor(server: OutsideServer, subject: string) {
    this.#server = server;
    this.#subject = subject;
  }

  static async start(subject = 'eve'): Promise<FakeProvider> {
    const server = await OutsideServer.start();
    const fake = new FakeProvider(server, subject);
    server.answer = (request, body, response) => {
      const path = (request.url ?? '').split('?')[0] ?? '';
      const instead = fake.instead.get(path);
      if (instead) instead(request, response, body);
      else void fake.#answer(path, response);
    };
    return fake;
  }

  get issuer(): string {
    return this.#server.url('').replace(/\/$/, '');
  }

  get caPem(): string {
    return this.#server.caPem;
  }

  /** What was asked for, in order. */
  get asked(): string[] {
    return this.#server.requests.map(({ url }) => url);
  }

  settings(more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    return {
      ...{ name: 'fake', issuer: this.issuer, clientId: 'ztna', title: 'A fake directory' },
      ...{ scopes: ['openid', 'email'], ca: this.caPem, allowPrivate: true, ...more },
    };
  }

  async stop(): Promise<void> {
    await this.#server.stop();
  }

  async #answer(path: string, response: ServerResponse): Promise<void> {
    const answer = await this.#answerTo(path);
    response.statusCode = answer === undefined ? 404 : 200;
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer ?? {}));
  }

  async #answerTo(path: string): Promise<unknown> {
    const { issuer } = this;
    switch (path) {
      case '/.well-known/openid-configuration':
        return {
          issuer,
          authorization_endpoint: `${issuer}/auth`,
          token_endpoint: `${issuer}/token`,
          userinfo_endpoint: `${issuer}/me`,
          jwks_uri: `${issuer}/jwks`,
          id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'],
          ...this.metadata,
        };
      case '/jwks':
        return keySet();
      case '/token':
        return {
          ...{ access_token: 'opaque', token_type: 'Bearer', expires_in: 600 },
          ...{ refresh_token: 'opaque too', id_token: await this.#idToken() },
        };
      case '/me':
        return { sub: this.#subject, ...this.userInfo };
      default:
        return undefined;
    }
  }

  async #idToken(): Promise<string> {
    const { claims = {}, alg = 'RS256', kid = 'k1', key } = this.wishes;
    const iat = Math.floor(Date.now() / 1_000);
    const all = {
      ...{ iss: this.issuer, aud: 'ztna', sub: this.#subject, iat, exp: iat + 600 },
      ...{ nonce: this.nonce, auth_time: iat, email: 'eve@example.com', ...claims },
    };
    if (alg === 'none') return new UnsecuredJWT(all).encode();
    const secret = createHash('sha256').update('shared').digest();
    return new SignJWT(all)
      .setProtectedHeader({ alg, kid })
      .sign(key ?? (alg.startsWith('HS') ? secret : sharedKey()));
  }
}

export function otherKey(): KeyObject {
  return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
}
