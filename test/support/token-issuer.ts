import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { exportJWK, SignJWT, type JWTPayload } from 'jose';
import { TestCa } from './pki.ts';

/** An issuer of tokens for workloads, as code forges and clusters are. */
export class TokenIssuer {
  readonly keys = generateKeyPairSync('rsa', { modulusLength: 2048 });
  readonly other = generateKeyPairSync('rsa', { modulusLength: 2048 });
  readonly ca = new TestCa();
  readonly #server: Server;
  /** What is served in place of the keys. */
  jwks: string | undefined;
  asked = 0;

  constructor() {
    const { keyPem, certificatePem } = this.ca.issue();
    this.#server = createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
      this.asked += 1;
      void this.#answer(request.url ?? '').then((text) => response.end(text));
    });
  }

  async #answer(url: string): Promise<string> {
    if (url.endsWith('openid-configuration')) {
      return JSON.stringify({ issuer: this.url, jwks_uri: `${this.url}/keys` });
    }
    if (this.jwks !== undefined) return this.jwks;
    const jwk = await exportJWK(this.keys.publicKey);
    return JSON.stringify({ keys: [{ ...jwk, kid: 'one', use: 'sig', alg: 'RS256' }] });
  }

  async start(): Promise<void> {
    this.#server.on('tlsClientError', () => undefined);
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  get url(): string {
    return `https://localhost:${String((this.#server.address() as AddressInfo).port)}`;
  }

  get claims(): JWTPayload {
    const iat = Math.floor(Date.now() / 1_000);
    const sub = 'repo:acme/shop:ref:refs/heads/main';
    const repository = { repository: 'acme/shop', kubernetes: { namespace: 'shop' } };
    return { iss: this.url, aud: 'ztna', sub, ...repository, iat, exp: iat + 600 };
  }

  sign(changes: JWTPayload = {}, header: object = {}, key = this.keys.privateKey): Promise<string> {
    return new SignJWT({ ...this.claims, ...changes })
      .setProtectedHeader({ alg: 'RS256', kid: 'one', typ: 'JWT', ...header })
      .sign(key);
  }
}
