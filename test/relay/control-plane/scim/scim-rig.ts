import { request } from 'node:https';
import { grantSchema, verifyStatement, type Grant } from '../../../../protocol/index.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer } from '../service/rig.ts';

export const userSchema = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const groupSchema = 'urn:ietf:params:scim:schemas:core:2.0:Group';
export const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';

export interface ScimAnswer {
  readonly status: number;
  readonly body: Record<string, unknown> & { readonly id: string };
  readonly headers: Record<string, unknown>;
}

/** A control plane with a connector for `wiki`, and a directory that has a token. */
export class ScimRig {
  readonly rig: Rig;
  readonly connector: ConnectorPeer;
  readonly token: string;

  private constructor(rig: Rig, connector: ConnectorPeer, token: string) {
    this.rig = rig;
    this.connector = connector;
    this.token = token;
  }

  static async start(): Promise<ScimRig> {
    const rig = await Rig.start();
    await rig.admin('policy.apply', { files: staffPolicy });
    const connector = await rig.connector('berlin', ['wiki']);
    await rig.relay(connector);
    const { token } = await rig.admin<{ token: string }>('scim-token.add', { name: 'okta' });
    return new ScimRig(rig, connector, token);
  }

  ask(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<ScimAnswer> {
    const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const call = request(
        `${this.rig.url}/scim/v2/${path}`,
        {
          method,
          headers: {
            authorization: `Bearer ${this.token}`,
            'content-type': 'application/scim+json',
            ...headers,
          },
          rejectUnauthorized: false,
          agent: false,
        },
        (response) => {
          let answer = '';
          response.on('data', (chunk: Buffer) => (answer += chunk.toString()));
          response.on('end', () => {
            resolve({
              status: response.statusCode ?? 0,
              body: (answer === '' ? {} : JSON.parse(answer)) as ScimAnswer['body'],
              headers: response.headers,
            });
          });
        },
      );
      call.on('error', reject);
      call.end(text);
    });
  }

  patch(path: string, ...operations: readonly unknown[]): Promise<ScimAnswer> {
    return this.ask('PATCH', path, { schemas: [patchSchema], Operations: operations });
  }

  /** A user that the directory added, with its id. */
  async user(userName: string, more: Record<string, unknown> = {}): Promise<string> {
    const { status, body } = await this.ask('POST', 'Users', {
      schemas: [userSchema],
      userName,
      ...more,
    });
    if (status !== 201) throw new Error(JSON.stringify(body));
    return body.id;
  }

  async group(displayName: string, members: readonly string[] = []): Promise<string> {
    const { status, body } = await this.ask('POST', 'Groups', {
      schemas: [groupSchema],
      displayName,
      members: members.map((value) => ({ value })),
    });
    if (status !== 201) throw new Error(JSON.stringify(body));
    return body.id;
  }

  /** A device of a user, with a tunnel that is open as far as the control plane is told. */
  async tunnel(user: string): Promise<{ device: DevicePeer; grant: Grant }> {
    const device = await this.rig.device(user, []);
    await this.rig.untilRouted('wiki', device);
    const permit = await device.channel.request({ type: 'grant', app: 'wiki' });
    if (permit.type !== 'permit') throw new Error(`no permit but ${permit.type}`);
    const keys = device.identity.bundle.grantKeys;
    const grant = verifyStatement('grant', grantSchema, permit.grant, keys);
    this.connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
    return { device, grant };
  }

  /** Resolves once the agent was told that the tunnel ended, with the reason. */
  ended(device: DevicePeer, { tunnel }: Grant): Promise<string> {
    return device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === tunnel ? message.reason : undefined,
    );
  }

  async show(user: string): Promise<Record<string, unknown>> {
    return this.rig.admin('user.show', { name: user });
  }

  /** What the directory did, by the audit log. */
  async records(): Promise<{ action: string; subject: string; user: string | null }[]> {
    const rows = await this.rig.plane.services.audit.read();
    return rows
      .filter(({ actor }) => actor === 'scim:okta')
      .map(({ action, subject, userName }) => ({ action, subject, user: userName }));
  }

  async stop(): Promise<void> {
    await this.rig.stop();
  }
}
