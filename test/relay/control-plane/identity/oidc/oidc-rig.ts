import { createHash, randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import {
  grantSchema,
  verifyStatement,
  type DeviceId,
  type Grant,
  type SessionFacts,
  type ToDevice,
} from '../../../../../protocol/index.ts';
import { openSession } from '../../../../../relay/control-plane/access/open-session.ts';
import { getUser } from '../../../../../relay/control-plane/api/lookup.ts';
import type { ProvidedGrant } from '../../../../../relay/control-plane/identity/sign-ins.ts';
import { OidcServer, type OidcServerOptions } from '../../../../support/oidc-server.ts';
import type { ScriptedBrowser, Visit } from '../../../../support/scripted-browser.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer } from '../../service/rig.ts';

/** What `provider add` is given for a provider of tests. */
export function settingsOf(
  server: OidcServer,
  more: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    name: 'idp',
    issuer: server.issuer,
    clientId: server.clientId,
    secret: server.clientSecret,
    title: 'The test directory',
    scopes: ['openid', 'profile', 'email', 'offline_access'],
    groupsClaim: 'groups',
    ca: server.caPem,
    allowPrivate: true,
    ...more,
  };
}

/** A provider that has a relay's addresses registered for these names. */
export async function providerFor(
  rig: Rig,
  options: OidcServerOptions = {},
  names: readonly string[] = ['idp'],
): Promise<OidcServer> {
  const redirectUris = names.map((name) => `${rig.url}/oidc/${name}/callback`);
  return OidcServer.start({ redirectUris, ...options });
}

/** A sign-in as a command begins it, with what that command alone knows. */
export interface Asked {
  readonly signIn: string;
  readonly url: string;
  readonly userCode: string | null;
  readonly verifier: string;
}

/** Where the command listens, as far as tests of the relay go: nobody is there. */
export const loopbackPort = 40_123;

export type AskedHow = Partial<{
  method: 'browser' | 'device_code';
  provider: string | null;
  loopbackPort: number | null;
  isStepUp: boolean;
}>;

/** A device of a user that signs in at the provider, which does not know it by anything but its name yet. */
export async function ofProvider(
  rig: Rig,
  name: string,
  provider: string | null,
): Promise<DevicePeer> {
  const device = await rig.device(name, []);
  await rig.plane.services.store.write((tx) =>
    tx.updateTable('users').set({ provider }).where('name', '=', name).execute(),
  );
  return device;
}

/** A device whose user signed in at a provider, with what that gave. */
export async function signedInAt(
  { rig }: Pick<OidcRig, 'rig'>,
  provider: string,
  name: string,
  grant: Partial<ProvidedGrant>,
): Promise<DevicePeer> {
  const { services } = rig.plane;
  const device = await ofProvider(rig, name, provider);
  const user = await getUser(services.store.db, name);
  const proof = {
    ...{ user: user.id, provider, methods: ['pwd'], acr: '' },
    authenticatedAtMs: services.clock.nowMs(),
    grant: {
      ...{ subject: name, sid: null, refreshToken: null, idToken: '', recheckMs: 3_600_000 },
      ...grant,
    },
  };
  await services.store.write((tx) =>
    openSession(services, tx, device.identity.id as DeviceId, proof, ''),
  );
  return device;
}

/** Begins a sign-in as a command does that listens for a browser. */
export async function askSignIn(device: DevicePeer, more: AskedHow): Promise<Asked> {
  const verifier = randomBytes(32).toString('base64url');
  const started = await device.channel.request({
    type: 'sign_in_begin',
    method: 'browser',
    provider: null,
    challenge: createHash('sha256').update(verifier).digest('base64url'),
    loopbackPort,
    isStepUp: false,
    ...more,
  });
  if (started.type !== 'sign_in_started') throw new Error(`no sign-in but ${started.type}`);
  return { ...started, verifier };
}

export function finishSignIn(
  device: DevicePeer,
  { signIn, verifier }: Asked,
  ticket: string | null,
): Promise<ToDevice> {
  return device.channel.request({ type: 'sign_in_finish', signIn, ticket, verifier });
}

/** Follows up to the command, where nobody is, or to a page that ends the sign-in. */
export function followToCommand(browser: ScriptedBrowser, url: string): Promise<Visit> {
  return browser.follow(url, ({ hostname, port }) => {
    return hostname === '127.0.0.1' && port === String(loopbackPort);
  });
}

/** A relay with a provider, and what people and their commands do there. */
export class OidcRig {
  readonly rig: Rig;
  readonly server: OidcServer;

  private constructor(rig: Rig, server: OidcServer) {
    this.rig = rig;
    this.server = server;
  }

  static async start(
    options: OidcServerOptions = {},
    settings: Readonly<Record<string, unknown>> = {},
    { hasLogout = false }: { readonly hasLogout?: boolean } = {},
  ): Promise<OidcRig> {
    const rig = await Rig.start({ maxDevicesPerUser: 50 });
    rig.version = 4;
    const server = await providerFor(rig, {
      ...options,
      ...(hasLogout ? { logoutUri: `${rig.url}/oidc/idp/logout` } : {}),
    });
    await rig.admin('provider.add', settingsOf(server, settings));
    return new OidcRig(rig, server);
  }

  async stop(): Promise<void> {
    await this.server.stop();
    await this.rig.stop();
  }

  device(name: string, provider: string | null = 'idp'): Promise<DevicePeer> {
    return ofProvider(this.rig, name, provider);
  }

  begin(device: DevicePeer, more: AskedHow = {}): Promise<Asked> {
    return askSignIn(device, { provider: 'idp', ...more });
  }

  /** Has a person go through the sign-in, up to the command or a page that ends it. */
  visit(asked: Pick<Asked, 'url'>, browser: ScriptedBrowser): Promise<Visit> {
    return followToCommand(browser, asked.url);
  }

  /** Goes as far as the provider's answer, which is not brought to the relay. */
  visitProvider(asked: Pick<Asked, 'url'>, browser: ScriptedBrowser): Promise<Visit> {
    return browser.follow(asked.url, ({ pathname }) => pathname.endsWith('/callback'));
  }

  finish(device: DevicePeer, asked: Asked, ticket: string | null): Promise<ToDevice> {
    return finishSignIn(device, asked, ticket);
  }

  /** Signs the device's user in with a browser beside it. */
  async signIn(device: DevicePeer, person: string, more: AskedHow = {}): Promise<SessionFacts> {
    const asked = await this.begin(device, more);
    const { url, text } = await this.visit(asked, this.server.browserOf(person));
    const ticket = url.searchParams.get('ticket');
    if (ticket === null) throw new Error(`no ticket: ${url.href} ${text}`);
    const finished = await this.finish(device, asked, ticket);
    if (finished.type !== 'signed_in') throw new Error(`no session but ${finished.type}`);
    return finished.session;
  }

  /** Reasons for which sign-ins were refused, by the audit log, in order. */
  async refusals(): Promise<string[]> {
    const rows = await this.rig.plane.services.audit.read();
    return rows
      .filter(({ action, outcome }) => action === 'session.sign_in' && outcome === 'refused')
      .map(({ detailsJson }) => String((JSON.parse(detailsJson) as { reason?: unknown }).reason));
  }
}

/** Lets everyone of group `staff` use every app, and gives `wiki` a connector and a data plane. */
export async function publishWiki({ rig }: Pick<OidcRig, 'rig'>): Promise<ConnectorPeer> {
  await rig.admin('policy.apply', { files: staffPolicy });
  const connector = await rig.connector('berlin', ['wiki']);
  await rig.relay(connector);
  return connector;
}

/** A tunnel that is open, as far as the control plane is told. */
export async function openTunnel(
  { rig }: Pick<OidcRig, 'rig'>,
  connector: ConnectorPeer,
  device: DevicePeer,
): Promise<Grant['tunnel']> {
  await rig.untilRouted('wiki', device);
  const permit = await device.channel.request({ type: 'grant', app: 'wiki' });
  if (permit.type !== 'permit') throw new Error(`no permit but ${permit.type}`);
  const keys = device.identity.bundle.grantKeys;
  const { tunnel } = verifyStatement('grant', grantSchema, permit.grant, keys);
  connector.channel.send({ type: 'tunnel_opened', tunnel });
  while (rig.plane.services.tunnels.get(tunnel)?.state !== 'open') await setImmediate();
  return tunnel;
}

/** Makes it the turn of everybody to be asked about. */
export async function hastenChecks({ rig }: Pick<OidcRig, 'rig'>): Promise<void> {
  await rig.plane.services.store.write((tx) =>
    tx.updateTable('providerGrants').set({ nextCheckAtMs: 0, claimedUntilMs: 0 }).execute(),
  );
}
