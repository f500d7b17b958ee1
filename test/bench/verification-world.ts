import {
  encodeMessage,
  newId,
  toConnector,
  toDevice,
  toRelay,
  type ConnectorId,
  type DeviceId,
  type DevicePosture,
  type InstanceId,
} from '../../protocol/index.ts';
import { registerSelf } from '../../relay/control-plane/live/ownership.ts';
import type { Services } from '../../relay/control-plane/services.ts';
import type { Tx } from '../../relay/control-plane/store/index.ts';

export const appsPerUser = 10;
const teams = 10;
const connectorCount = 4;

/** What people of a company of some size may do: by team, with care for devices, secrets and behaviour. */
export const companyPolicies: Readonly<Record<string, string>> = {
  'teams.cedar': Array.from(
    { length: teams },
    (_, team) =>
      `@id("team-${String(team)}") permit (principal in Group::"team-${String(team)}", action == Action::"connect", resource in Site::"berlin")
       when { context.posture.disk_encryption == "on" && context.posture.firewall == "on" && context.authentication.mfa };`,
  ).join('\n'),
  'care.cedar': `
    @id("old-systems") forbid (principal, action, resource)
    when { context.device.platform == "linux" && context.posture.os_version_number < 22000000 };
    @id("unusual") forbid (principal, action, resource) when { context.risk.score >= 80 };
    @id("locked-screens") forbid (principal, action, resource)
    when { resource.hasTag("class") && resource.getTag("class") == "secret" && context.posture.screen_lock != "on" };
    @id("contractors-stay-in") forbid (principal in Group::"contractors", action, resource)
    unless { context.network.address.isInRange(ip("10.0.0.0/8")) };`,
};

/** The same, with conditions that pass with time. */
export const timedPolicies: Readonly<Record<string, string>> = {
  ...companyPolicies,
  'time.cedar': `
    @id("fresh-for-secrets") forbid (principal, action, resource)
    when { resource.hasTag("class") && resource.getTag("class") == "secret" && context.authentication.age_seconds > 28800 };
    @id("contractors-by-day") forbid (principal in Group::"contractors", action, resource)
    when { context.time.hour < 7 || context.time.hour >= 20 };`,
};

const healthy: DevicePosture = {
  platform: 'linux',
  osVersion: '24.04',
  clientVersion: '1.4.0',
  checks: [
    ['disk_encryption', 'on', 'lsblk'],
    ['firewall', 'on', 'nftables'],
    ['screen_lock', 'on', 'gnome'],
    ['antivirus', 'off', 'no process'],
    ['secure_boot', 'on', 'efivars'],
    ['patched', 'on', 'unattended-upgrades'],
    ['physical', 'on', 'none'],
  ],
};

/** A company whose tunnels are all open, as far as one control plane is concerned: rows in its store, ends in memory. */
export class Company {
  readonly #services: Services;
  readonly devices: DeviceId[] = [];
  /** What was encoded for the ends. */
  sent = { messages: 0, bytes: 0 };

  constructor(services: Services) {
    this.#services = services;
  }

  /** Opens as many tunnels, `appsPerUser` of each user on one device. */
  async open(tunnels: number): Promise<void> {
    const { store } = this.#services;
    const { site, apps, connectors } = await store.write((tx) => this.#addPlaces(tx));
    const users = Math.ceil(tunnels / appsPerUser);
    for (let at = 0; at < users; at += 100) {
      await store.write(async (tx) => {
        for (let user = at; user < Math.min(at + 100, users); user++) {
          await this.#addUser(tx, user, apps, connectors);
        }
      });
    }
    this.#addPeers(site, connectors);
    this.tellPosture();
    await registerSelf(this.#services);
  }

  /** Every device says once more that it is well. */
  tellPosture(): void {
    const { postures, clock } = this.#services;
    for (const device of this.devices) {
      postures.note(device, { facts: structuredClone(healthy), atMs: clock.nowMs() });
    }
  }

  async #addPlaces(tx: Tx) {
    const nowMs = this.#services.clock.nowMs();
    const site = { id: newId('site'), name: 'berlin', createdAtMs: nowMs };
    await tx.insertInto('sites').values(site).execute();
    const apps = Array.from({ length: appsPerUser }, (_, at) => ({
      id: newId('app'),
      name: `app-${String(at)}`,
      siteId: site.id,
      kind: 'tcp' as const,
      portHint: null,
      labelsJson: JSON.stringify({ class: at % 3 === 0 ? 'secret' : 'open', tier: String(at) }),
      createdAtMs: nowMs,
    }));
    await tx.insertInto('apps').values(apps).execute();
    for (const name of [...Array(teams).keys()].map((team) => `team-${String(team)}`)) {
      await tx
        .insertInto('groups')
        .values({ id: newId('group'), name, createdAtMs: nowMs })
        .execute();
    }
    const connectors = Array.from({ length: connectorCount }, () => ({
      id: newId('connector'),
      instance: newId('instance'),
    }));
    return { site, apps, connectors };
  }

  async #addUser(
    tx: Tx,
    at: number,
    apps: readonly { id: ReturnType<typeof newId<'app'>> }[],
    connectors: readonly { id: ConnectorId; instance: InstanceId }[],
  ): Promise<void> {
    const nowMs = this.#services.clock.nowMs();
    const user = newId('user');
    const device = newId('device');
    const session = newId('session');
    const hourMs = 3_600_000;
    await tx
      .insertInto('users')
      .values({
        id: user,
        name: `user-${String(at)}`,
        role: null,
        disabled: 0,
        passwordHash: null,
        expiresAtMs: null,
        createdAtMs: nowMs,
      })
      .execute();
    const groups = await tx
      .selectFrom('groups')
      .select('id')
      .where('name', 'in', [`team-${String(at % teams)}`, `team-${String((at + 1) % teams)}`])
      .execute();
    for (const { id } of groups) {
      const row = { userId: user, groupId: id, untilMs: null, createdAtMs: nowMs };
      await tx.insertInto('memberships').values(row).execute();
    }
    await tx
      .insertInto('devices')
      .values({
        id: device,
        userId: user,
        hostname: `laptop-${String(at)}`,
        platform: 'linux',
        signingKey: `signing-${String(at)}`,
        noiseKey: `noise-${String(at)}`,
        certificateSerial: null,
        certificateNotAfterMs: null,
        state: 'enrolled',
        createdAtMs: nowMs,
        lastSeenAtMs: nowMs,
        restrictedJson: '[]',
        unhealthy: 0,
      })
      .execute();
    await tx
      .insertInto('sessions')
      .values({
        id: session,
        userId: user,
        deviceId: device,
        provider: 'local',
        methodsJson: '["password","totp"]',
        authenticatedAtMs: nowMs,
        createdAtMs: nowMs,
        lastSeenAtMs: nowMs,
        idleMs: 8 * hourMs,
        absoluteEndAtMs: nowMs + 16 * hourMs,
        endedAtMs: null,
        endReason: null,
      })
      .execute();
    for (const [number, app] of apps.entries()) {
      const connector = connectors[(at + number) % connectors.length];
      if (!connector) continue;
      await tx
        .insertInto('tunnels')
        .values({
          id: newId('tunnel'),
          userId: user,
          sessionId: session,
          deviceId: device,
          appId: app.id,
          connectorId: connector.id,
          instance: connector.instance,
          relayId: null,
          relaysJson: '[]',
          decisionId: newId('decision'), // the first verification writes its own down
          version: 3,
          generation: 1,
          fencing: this.#services.sequence.fencing,
          owner: this.#services.self.id,
          state: 'open',
          holdMs: 300_000,
          detachedAtMs: null,
          suspendedFor: null,
          suspensionFix: null,
          grantExpiresAtMs: nowMs + 60_000,
          untilMs: nowMs + 60_000,
          openedAtMs: nowMs,
          closedAtMs: null,
          closeReason: null,
          closeCode: null,
          bytesUp: 0,
          bytesDown: 0,
          createdAtMs: nowMs,
        })
        .execute();
    }
    this.devices.push(device);
  }

  /** Channels that end in this process, behind the encoding of every message. */
  #addPeers(
    site: { id: ReturnType<typeof newId<'site'>> },
    connectors: readonly { id: ConnectorId; instance: InstanceId }[],
  ): void {
    const { peers } = this.#services;
    const common = { version: 3, toldTo: Number.MAX_SAFE_INTEGER, close: () => undefined };
    const count = (frame: string | Uint8Array) => {
      this.sent.messages += 1;
      this.sent.bytes += frame.length;
    };
    for (const { id, instance } of connectors) {
      peers.addConnector({
        ...common,
        id,
        instance,
        address: '203.0.113.1',
        name: id,
        site: site.id,
        apps: new Set(),
        unhealthy: new Set(),
        signingKey: '',
        isStopping: false,
        roundTrips: new Map(),
        send: (message) => {
          count(encodeMessage(toConnector, message));
        },
      });
    }
    peers.addRelay({
      ...common,
      id: newId('relay'),
      address: '203.0.113.2',
      url: 'https://relay.example.com',
      isDraining: false,
      receiptKey: null,
      slots: new Map(),
      send: (message) => {
        count(encodeMessage(toRelay, message));
      },
    });
    for (const [at, id] of this.devices.entries()) {
      peers.addDevice({
        ...common,
        id,
        address: `10.${String(at >> 8)}.${String(at & 255)}.7`,
        send: (message) => {
          count(encodeMessage(toDevice, message));
        },
      });
    }
  }
}
