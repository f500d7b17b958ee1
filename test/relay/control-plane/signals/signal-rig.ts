import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  grantSchema,
  verifyStatement,
  type DeviceId,
  type Grant,
  type SessionId,
} from '../../../../protocol/index.ts';
import type { Settings } from '../../../../relay/control-plane/settings.ts';
import type { SignalSettings } from '../../../../relay/signal-settings.ts';
import {
  Rig,
  staffPolicy,
  type ConnectorPeer,
  type DevicePeer,
  type RelayPeer,
} from '../service/rig.ts';
import { audience, claimsOf, issuer, keySet, sign, type TokenWishes } from './transmitter.ts';

export const pushToken = 'a-secret-of-the-transmitter';

/** `databases` needs a second factor, everything else a place in `staff`. */
export const policy = {
  ...staffPolicy,
  'mfa.cedar':
    '@id("mfa") forbid (principal, action == Action::"connect", resource == App::"vault") unless { context.authentication.mfa };',
};

/** A control plane that receives the streams `idp` and `mdm` by push, with one connector. */
export class SignalRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'ztna-signals-'));
  rig!: Rig;
  connector!: ConnectorPeer;
  relay!: RelayPeer;

  static async start(
    changes: Partial<SignalSettings> = {},
    settings: Partial<Settings> = {},
  ): Promise<SignalRig> {
    const all = new SignalRig();
    const jwks = all.file('jwks.json', JSON.stringify(await keySet()));
    const stream = (name: string) => ({
      ...{ name, issuer, audience, keys: { file: jwks }, poll: null },
      pushTokenFile: all.file('token', `${pushToken}\n`),
      subjects: { email: 'local_part', domains: ['example.com'], mapFile: null } as const,
      ...{ maxAgeMs: 86_400_000, riskMs: 3_600_000 },
    });
    all.rig = await Rig.start({
      ...settings,
      signals: { receive: [stream('idp'), stream('mdm')], transmit: [], webhooks: [], ...changes },
    });
    return all;
  }

  async publish(): Promise<void> {
    await this.rig.admin('policy.apply', { files: policy });
    this.connector = await this.rig.connector('berlin', ['wiki', 'vault']);
    this.relay = await this.rig.relay(this.connector);
  }

  /** A file of the test's own, for its owner alone. */
  file(name: string, text: string): string {
    const path = join(this.dir, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  async stop(): Promise<void> {
    await (this.rig as Rig | undefined)?.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  async user(name: string): Promise<DevicePeer> {
    const device = await this.rig.device(name);
    await this.rig.untilRouted('wiki', device);
    return device;
  }

  /** A tunnel that is open, as far as the control plane is told. */
  async tunnel(device: DevicePeer, app = 'wiki'): Promise<Grant> {
    const permit = await device.channel.request({ type: 'grant', app });
    if (permit.type !== 'permit') throw new Error(`no permit but ${permit.type}`);
    const keys = device.identity.bundle.grantKeys;
    const grant = verifyStatement('grant', grantSchema, permit.grant, keys);
    this.connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
    return grant;
  }

  /** Resolves once the agent was told that the tunnel ended, with the reason. */
  ended(device: DevicePeer, grant: Grant): Promise<string> {
    return device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === grant.tunnel
        ? message.reason
        : undefined,
    );
  }

  token(
    uri: string,
    payload: Record<string, unknown>,
    subject: unknown,
    wishes: TokenWishes = {},
  ): Promise<string> {
    return sign(claimsOf(uri, payload, subject, this.rig.plane.services.clock.nowMs()), wishes);
  }

  /** Pushes a token made so, which must be accepted. */
  async tell(
    stream: 'idp' | 'mdm',
    uri: string,
    payload: Record<string, unknown>,
    subject: unknown,
  ): Promise<void> {
    const { status, text } = await this.push(stream, await this.token(uri, payload, subject));
    if (status !== 202) throw new Error(`${String(status)} ${text}`);
  }

  push(
    stream: string,
    body: string,
    headers: Record<string, string | undefined> = {},
    method = 'POST',
  ): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
    const all: Record<string, string | undefined> = {
      authorization: `Bearer ${pushToken}`,
      'content-type': 'application/secevent+jwt',
      ...headers,
    };
    const given = Object.fromEntries(
      Object.entries(all).filter(([, value]) => value !== undefined),
    );
    return this.ask(`/v1/signals/${stream}`, method, body, given);
  }

  ask(
    path: string,
    method = 'GET',
    body = '',
    headers: Record<string, string | undefined> = {},
  ): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
    return new Promise((resolve, reject) => {
      const call = request(
        this.rig.url + path,
        {
          method,
          headers: headers,
          rejectUnauthorized: false,
          agent: false,
        },
        (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => (text += chunk.toString()));
          response.on('end', () => {
            resolve({ status: response.statusCode ?? 0, text, headers: response.headers });
          });
        },
      );
      call.on('error', reject);
      call.end(body);
    });
  }

  /** What signals did, by the audit log. */
  async records(): Promise<
    { outcome: string; userName: string | null; details: Record<string, unknown> }[]
  > {
    const rows = await this.rig.plane.services.audit.read();
    return rows
      .filter(({ action }) => action === 'signal.receive')
      .map(({ outcome, userName, detailsJson }) => ({
        outcome,
        userName,
        details: JSON.parse(detailsJson) as Record<string, unknown>,
      }));
  }

  sessionOf(
    device: DevicePeer,
  ): Promise<{ id: SessionId; endedAtMs: number | null; methodsJson: string }> {
    return this.rig.plane.services.store.db
      .selectFrom('sessions')
      .select(['id', 'endedAtMs', 'methodsJson'])
      .where('deviceId', '=', device.identity.id as DeviceId)
      .orderBy('createdAtMs', 'desc')
      .executeTakeFirstOrThrow();
  }
}

export const email = (name: string) => ({ format: 'email', email: `${name}@example.com` });
export const opaque = (id: string) => ({ format: 'opaque', id });
