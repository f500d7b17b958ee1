import { request as httpsRequest } from 'node:https';
import { request as httpRequest } from 'node:http';

export interface Visit {
  readonly url: URL;
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/**
 * As much of a browser as a sign-in needs: cookies of each host, redirects, forms. It believes any certificate, since those of
 * tests are of authorities that nobody knows.
 */
export class ScriptedBrowser {
  readonly #cookies = new Map<string, Map<string, string>>();
  /** Sent along with every request: who sits at it, for providers of tests. */
  readonly #headers: Readonly<Record<string, string>>;
  /** Everything that was asked for, in order. */
  readonly visited: string[] = [];

  constructor(headers: Readonly<Record<string, string>> = {}) {
    this.#headers = headers;
  }

  /** One request, without following where it leads. */
  ask(address: string | URL, form?: Readonly<Record<string, string>>): Promise<Visit> {
    const url = new URL(address);
    this.visited.push(url.href);
    const jar = this.#cookies.get(url.host) ?? new Map<string, string>();
    this.#cookies.set(url.host, jar);
    const body = form === undefined ? undefined : new URLSearchParams(form).toString();
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const call = send(
        url,
        {
          method: body === undefined ? 'GET' : 'POST',
          agent: false,
          rejectUnauthorized: false,
          headers: {
            ...this.#headers,
            accept: 'text/html',
            ...(jar.size === 0
              ? {}
              : { cookie: [...jar].map(([key, value]) => `${key}=${value}`).join('; ') }),
            ...(body === undefined
              ? {}
              : {
                  'content-type': 'application/x-www-form-urlencoded',
                  'content-length': Buffer.byteLength(body),
                  origin: url.origin,
                }),
          },
        },
        (response) => {
          for (const line of response.headers['set-cookie'] ?? []) {
            const [pair = '', ...attributes] = line.split(';');
            const at = pair.indexOf('=');
            const isGone = attributes.some((one) =>
              /^\s*(max-age=0|expires=Thu, 01 Jan 1970)/i.test(one),
            );
            if (isGone) jar.delete(pair.slice(0, at));
            else jar.set(pair.slice(0, at), pair.slice(at + 1));
          }
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('error', reject);
          response.on('end', () => {
            const { statusCode: status = 0, headers } = response;
            resolve({ url, status, headers, text });
          });
        },
      );
      call.on('error', reject);
      call.end(body);
    });
  }

  /** Follows redirects until there is none, or until one leads where `isEnd` says; that one is not asked for. */
  async follow(
    address: string | URL,
    isEnd: (url: URL) => boolean = () => false,
    form?: Readonly<Record<string, string>>,
  ): Promise<Visit> {
    let visit = await this.ask(address, form);
    for (let count = 0; count < 20; count++) {
      const { location } = visit.headers;
      if (visit.status < 300 || visit.status > 399 || typeof location !== 'string') return visit;
      const url = new URL(location, visit.url);
      if (isEnd(url)) return { ...visit, url };
      visit = await this.ask(url);
    }
    throw new Error(`redirected without end: ${visit.url.href}`);
  }
}
