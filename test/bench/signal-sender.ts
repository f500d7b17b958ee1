import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  audience,
  caep,
  claimsOf,
  issuer,
  keySet,
  sign,
} from '../relay/control-plane/signals/transmitter.ts';

const token = 'a-token-of-the-bench-and-of-nothing-else';

/** An identity provider that pushes security events to one relay. */
export class SignalSender {
  readonly #dir: string;
  /** The relay shows a certificate of its own CA; what is measured is not the way there. */
  readonly #agent = new Agent({ ALPNProtocols: ['http/1.1'], rejectUnauthorized: false });
  #url = '';

  private constructor(dir: string) {
    this.#dir = dir;
  }

  static async create(): Promise<SignalSender> {
    const dir = await mkdtemp(join(tmpdir(), 'ztna-bench-signals-'));
    await writeFile(join(dir, 'jwks.json'), JSON.stringify(await keySet()), { mode: 0o600 });
    await writeFile(join(dir, 'token'), token, { mode: 0o600 });
    return new SignalSender(dir);
  }

  /** What relay.yaml says of it, as the value of `signals`. */
  get relayConfig(): string {
    const stream = [
      'name: bench',
      `issuer: ${issuer}`,
      `audience: ${audience}`,
      `keys: "file:${join(this.#dir, 'jwks.json')}"`,
      `push: { token: "file:${join(this.#dir, 'token')}" }`,
      'subjects: { email: local_part, domains: [example.com] }',
    ];
    return `{ receive: [{ ${stream.join(', ')} }] }`;
  }

  at(url: string): void {
    this.#url = url;
  }

  /** Sends a CAEP event about a user. Throws unless it was accepted. */
  async send(event: string, user: string, payload: Record<string, unknown>): Promise<void> {
    const subject = { format: 'email', email: `${user}@example.com` };
    const body = await sign(claimsOf(`${caep}${event}`, payload, subject, Date.now()));
    const [status, answer] = await new Promise<[number | undefined, string]>((resolve, reject) => {
      const post = request(
        `${this.#url}/v1/signals/bench`,
        {
          method: 'POST',
          agent: this.#agent,
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/secevent+jwt' },
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          response.once('end', () => {
            resolve([response.statusCode, text]);
          });
        },
      );
      post.once('error', reject);
      post.end(body);
    });
    if (status !== 202) throw new Error(`the event was answered ${String(status)}: ${answer}`);
  }

  async remove(): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true });
  }
}
