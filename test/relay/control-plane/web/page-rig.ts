import { createHash, randomBytes } from 'node:crypto';
import { request } from 'node:https';
import type { Settings } from '../../../../relay/control-plane/settings.ts';
import { Rig, staffPolicy, type DevicePeer } from '../service/rig.ts';

/** What a page answered. */
export interface Shown {
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** What a sign-in was begun with, as only the command that asked knows it. */
export interface Begun {
  readonly signIn: string;
  readonly path: string;
  readonly verifier: string;
}

/** A control plane, and a browser without a screen that is shown its pages. */
export class PageRig {
  rig!: Rig;
  /** What the browser was told to keep. */
  readonly cookies = new Map<string, string>();

  static async start(settings: Partial<Settings> = {}, host = 'localhost'): Promise<PageRig> {
    const pages = new PageRig();
    pages.rig = await Rig.start(settings, host);
    pages.rig.version = 4;
    await pages.rig.admin('policy.apply', { files: staffPolicy });
    return pages;
  }

  async stop(): Promise<void> {
    await (this.rig as Rig | undefined)?.stop();
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Shown> {
    return this.ask('GET', path, '', headers);
  }

  /** Sends a form as a browser does from a page of this deployment. */
  post(
    path: string,
    form: Readonly<Record<string, string>>,
    headers: Record<string, string | undefined> = {},
  ): Promise<Shown> {
    return this.ask('POST', path, new URLSearchParams(form).toString(), {
      origin: this.rig.url,
      'content-type': 'application/x-www-form-urlencoded',
      ...headers,
    });
  }

  ask(
    method: string,
    path: string,
    body: string,
    headers: Record<string, string | undefined>,
  ): Promise<Shown> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const given: Record<string, string | undefined> = {
      ...(cookie === '' ? {} : { cookie }),
      ...headers,
    };
    return new Promise((resolve, reject) => {
      const call = request(
        new URL(path, this.rig.url),
        {
          method,
          headers: Object.fromEntries(
            Object.entries(given).filter(([, value]) => value !== undefined),
          ),
          rejectUnauthorized: false,
          agent: false,
        },
        (answer) => {
          const chunks: Buffer[] = [];
          answer.on('data', (chunk: Buffer) => chunks.push(chunk));
          answer.once('error', reject);
          answer.once('end', () => {
            this.#keep(answer.headers['set-cookie'] ?? []);
            resolve({
              status: answer.statusCode ?? 0,
              text: Buffer.concat(chunks).toString('utf8'),
              headers: answer.headers,
            });
          });
        },
      );
      call.once('error', reject);
      call.end(body);
    });
  }

  #keep(cookies: readonly string[]): void {
    for (const cookie of cookies) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      if (/max-age=0/i.test(cookie)) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
  }

  /** Begins a sign-in as `ztna login` does; with a port where that listens for the browser. */
  async begin(device: DevicePeer, loopbackPort: number | null = null): Promise<Begun> {
    const verifier = randomBytes(32).toString('base64url');
    const answer = await device.channel.request({
      type: 'sign_in_begin',
      method: 'browser',
      provider: null,
      challenge: createHash('sha256').update(verifier).digest('base64url'),
      loopbackPort,
      isStepUp: false,
    });
    if (answer.type !== 'sign_in_started') throw new Error(`no sign-in but ${answer.type}`);
    return { signIn: answer.signIn, path: new URL(answer.url).pathname, verifier };
  }

  /** Finishes it as `ztna login` does. */
  async finish(device: DevicePeer, { signIn, verifier }: Begun, ticket: string | null) {
    const asked = { type: 'sign_in_finish', signIn, ticket, verifier } as const;
    const answer = await device.channel.request(asked);
    if (answer.type !== 'signed_in') throw new Error(`not signed in but ${answer.type}`);
    return answer.session;
  }

  /** Where `ztna mfa add --passkey` sends the browser. */
  async accountPath(device: DevicePeer): Promise<string> {
    const answer = await device.channel.request({ type: 'factors' });
    if (answer.type !== 'factors') throw new Error(answer.type);
    const { pathname, search } = new URL(answer.accountUrl);
    return pathname + search;
  }

  /** Details of what was refused so far, of this action. */
  async refusals(action: string): Promise<Record<string, unknown>[]> {
    await this.rig.settled();
    const records = await this.rig.plane.services.audit.read({});
    return records
      .filter((record) => record.action === action && record.outcome === 'refused')
      .map((record) => JSON.parse(record.detailsJson) as Record<string, unknown>);
  }
}

/** What a hidden field, or one to copy from, holds on a page. */
export function fieldOf({ text }: Shown, name: string): string {
  const tag = new RegExp(`<input[^>]*\\b(?:name|id)="${name}"[^>]*>`).exec(text)?.[0] ?? '';
  const value = /\bvalue="([^"]*)"/.exec(tag)?.[1];
  if (value === undefined) throw new Error(`no ${name} on the page`);
  return value;
}

/** Where a page leads the browser. */
export function locationOf({ headers }: Shown): URL {
  return new URL(String(headers['location']));
}
