import { createHash, generateKeyPairSync, randomUUID, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { exportJWK, SignJWT, type JWK } from 'jose';
import { TestCa } from '../../../support/pki.ts';

export const caep = 'https://schemas.openid.net/secevent/caep/event-type/';
export const risc = 'https://schemas.openid.net/secevent/risc/event-type/';
export const ssf = 'https://schemas.openid.net/secevent/ssf/event-type/';

export const issuer = 'https://idp.example.com';
export const audience = 'https://relay.example.com';

let shared: KeyObject | undefined;

/** An RSA key that tests of one file may share. */
export function sharedKey(): KeyObject {
  return (shared ??= generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey);
}

export interface TokenWishes {
  readonly claims?: Record<string, unknown>;
  readonly header?: Record<string, unknown>;
  readonly key?: KeyObject;
}

/** What a token claims unless a test wishes otherwise. */
export function claimsOf(
  uri: string,
  payload: Record<string, unknown>,
  subject: unknown,
  iatMs: number,
): Record<string, unknown> {
  return {
    iss: issuer,
    aud: audience,
    jti: randomUUID(),
    iat: Math.floor(iatMs / 1_000),
    sub_id: subject,
    events: { [uri]: payload },
  };
}

/** Signs a Security Event Token, or what a test would pass for one. */
export function sign(claims: Record<string, unknown>, wishes: TokenWishes = {}): Promise<string> {
  return new SignJWT({ ...claims, ...wishes.claims })
    .setProtectedHeader({ alg: 'RS256', typ: 'secevent+jwt', kid: 'k1', ...wishes.header })
    .sign(wishes.key ?? sharedKey());
}

export async function keySet(key = sharedKey(), kid = 'k1'): Promise<{ keys: JWK[] }> {
  const { kty, n, e } = await exportJWK(key);
  return { keys: [{ kty: kty ?? 'RSA', n: n ?? '', e: e ?? '', kid, alg: 'RS256', use: 'sig' }] };
}

type Answer = (request: IncomingMessage, body: string, response: ServerResponse) => void;

/** A real HTTPS server on loopback that a test answers for. */
export class OutsideServer {
  readonly requests: {
    readonly url: string;
    readonly body: string;
    readonly headers: IncomingMessage['headers'];
  }[] = [];
  readonly #server: Server;
  readonly caPem: string;
  answer: Answer = (_request, _body, response) => {
    response.writeHead(404).end();
  };
  #port = 0;

  private constructor(server: Server, caPem: string) {
    this.#server = server;
    this.caPem = caPem;
  }

  static async start(answer?: Answer): Promise<OutsideServer> {
    const ca = new TestCa();
    const { keyPem, certificatePem } = ca.issue();
    const server = createServer({ key: keyPem, cert: certificatePem });
    const outside = new OutsideServer(server, ca.certificatePem);
    if (answer) outside.answer = answer;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const body = Buffer.concat(chunks).toString();
        const { url = '', headers } = request;
        outside.answer(request, body, response);
        outside.requests.push({ url, body, headers });
      });
    });
    server.on('tlsClientError', () => undefined);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    outside.#port = (server.address() as AddressInfo).port;
    return outside;
  }

  url(path: string, host = 'localhost'): string {
    return `https://${host}:${String(this.#port)}${path}`;
  }

  /** Writes the certificate of its authority into `dir`, and answers where. */
  caFile(dir: string): string {
    const path = join(
      dir,
      `ca-${createHash('sha256').update(this.caPem).digest('hex').slice(0, 8)}.pem`,
    );
    writeFileSync(path, this.caPem);
    return path;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
