import '../../../support/cheap-passwords.ts';
import '../../../support/kept-rsa-keys.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  controlProtocol,
  fromConnector,
  fromDevice,
  fromRelay,
  logBatchSchema,
  newId,
  parseEnrolmentCode,
  toConnector,
  toDevice,
  toRelay,
  verifyStatement,
  type Bundle,
  type FromConnector,
  type FromDevice,
  type FromRelay,
  type LogBatch,
  type RevocationEntry,
  type ToConnector,
  type ToDevice,
  type ToRelay,
} from '../../../../protocol/index.ts';
import {
  ControlChannel,
  ControlClock,
  createLogger,
  enrol,
  loadIdentity,
  type Identity,
} from '../../../../protocol/host/index.ts';
import { joinRelay } from '../../../../relay/cli/join-relay.ts';
import { makeRelay } from '../../../../relay/cli/make-relay.ts';
import { relayConfigText } from '../../../../relay/cli/relay-yaml.ts';
import { runCommand } from '../../../../relay/control-plane/api/table.ts';
import {
  controlSocketPath,
  startControlPlane,
  type ControlPlane,
} from '../../../../relay/control-plane/service.ts';
import { defaultLimits, type Settings } from '../../../../relay/control-plane/settings.ts';
import { fileEngine, newPostgresDatabase } from '../fixture.ts';

export const password = 'correct-horse-of-a-test';

/** Lets everyone of group `staff` use every app. */
export const staffPolicy = {
  'staff.cedar':
    '@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource);',
};

const logger = (lines: string[]) =>
  createLogger({ program: 'test', level: 'debug', write: (line) => lines.push(line) });

type AnyMessage = { readonly type: string };

/** One end of a control channel that keeps what it was told. */
export class Peer<In extends AnyMessage, Out extends AnyMessage> {
  readonly identity: Identity;
  readonly messages: In[] = [];
  /** Newer bundles that came, verified. */
  readonly bundles: Bundle[];
  readonly channel: ControlChannel<In, Out>;
  readonly #wake = new Set<() => void>();

  constructor(
    identity: Identity,
    channel: ControlChannel<In, Out>,
    early: {
      readonly messages: In[];
      readonly bundles: Bundle[];
      onMessage: (message: In) => void;
    },
  ) {
    this.identity = identity;
    this.bundles = early.bundles;
    this.channel = channel;
    this.messages.push(...early.messages);
    early.onMessage = (message) => {
      this.messages.push(message);
      for (const wake of [...this.#wake]) wake();
    };
  }

  /** Resolves with the first message that `pick` answers something for; of those that came already, too. */
  async find<T>(pick: (message: In) => T | undefined): Promise<T> {
    return new Promise((resolve) => {
      let at = 0;
      const look = () => {
        for (; at < this.messages.length; at++) {
          const message = this.messages[at];
          const found = message && pick(message);
          if (found === undefined) continue;
          this.#wake.delete(look);
          resolve(found);
          return;
        }
      };
      this.#wake.add(look);
      look();
    });
  }

  /** Log batches so far, checked and opened. */
  logs(): LogBatch[] {
    return this.messages.flatMap((message) => {
      const batch = this.#openLog(message);
      return batch ? [batch] : [];
    });
  }

  /** Every entry so far. */
  entries(): RevocationEntry[] {
    return this.logs().flatMap((batch) => batch.entries);
  }

  /** Resolves once this end has been told that it knows everything up to `position`. */
  async completeTo(position: number): Promise<void> {
    await this.find((message) => {
      const batch = this.#openLog(message);
      return batch && batch.completeTo >= position ? batch : undefined;
    });
  }

  #openLog(message: In): LogBatch | undefined {
    if (message.type !== 'log') return undefined;
    const { statement } = message as unknown as { statement: string };
    return verifyStatement('log', logBatchSchema, statement, this.identity.bundle.grantKeys);
  }
}

export type DevicePeer = Peer<ToDevice, FromDevice>;
export type ConnectorPeer = Peer<ToConnector, FromConnector> & { readonly instance: string };
export type RelayPeer = Peer<ToRelay, FromRelay>;

/**
 * A real control plane in this process. In place of the data plane a plain TCP server passes connections on with
 * their PROXY line; connectors, devices and the data plane's own channel are played by the test.
 */
export class Rig {
  readonly logLines: string[] = [];
  readonly #abort = new AbortController();
  #host = '127.0.0.1';
  readonly #sockets = new Set<Socket>();
  dir = '';
  /** The highest version that its peers offer. */
  version = 1;
  url = '';
  storeUrl: string | null = null;
  plane!: ControlPlane;
  settings!: Settings;
  #front!: Server;
  #dropStore: () => Promise<void> = () => Promise.resolve();

  /** `host` is of this machine, as devices and browsers dial it. */
  static async start(changes: Partial<Settings> = {}, host = '127.0.0.1'): Promise<Rig> {
    const rig = new Rig();
    rig.#host = host;
    if (fileEngine.isPostgres) {
      const database = await newPostgresDatabase();
      rig.storeUrl = database.url;
      rig.#dropStore = database.drop;
    }
    rig.dir = await mkdtemp(join(tmpdir(), 'ztna-cp-'));
    await rig.#openFront();
    await makeRelay(rig.dir, rig.url, relayConfigText(rig.url, rig.storeUrl), rig.storeUrl);
    rig.settings = {
      url: rig.url,
      adminListen: null,
      maxDevicesPerUser: 3,
      session: { idleMs: 3_600_000, absoluteMs: 7_200_000 },
      verification: { intervalMs: 20_000, holdMs: 300_000 },
      posture: { maxAgeMs: 45_000, checks: [] },
      apps: {},
      limits: { ...defaultLimits, questionsPerMinute: 60_000, requestsPerMinute: 60_000 },
      ...changes,
    };
    await rig.startPlane();
    return rig;
  }

  /** A further control plane on the store of a rig that is on PostgreSQL. */
  static async join(first: Rig): Promise<Rig> {
    const rig = new Rig();
    rig.version = first.version;
    rig.dir = await mkdtemp(join(tmpdir(), 'ztna-cp-'));
    rig.storeUrl = first.storeUrl;
    await rig.#openFront();
    const { code } = await first.admin<{ code: string }>('invite.relay', {
      name: 'second',
      url: rig.url,
      isControl: true,
      ttlMs: 60_000,
    });
    await joinRelay(rig.dir, parseEnrolmentCode(code), first.storeUrl ?? '', 0);
    rig.settings = { ...first.settings, url: rig.url };
    await rig.startPlane();
    return rig;
  }

  async startPlane(): Promise<void> {
    this.plane = await startControlPlane({
      dir: this.dir,
      settings: this.settings,
      storeUrl: this.storeUrl,
      logger: logger(this.logLines),
    });
  }

  async #openFront(): Promise<void> {
    this.#front = createServer((client) => {
      const control = connect(controlSocketPath(this.dir));
      for (const socket of [client, control]) {
        this.#sockets.add(socket);
        socket.on('error', () => undefined);
        socket.once('close', () => this.#sockets.delete(socket));
      }
      control.write('PROXY TCP4 203.0.113.7 203.0.113.1 40000 443\r\n');
      client.pipe(control).pipe(client);
    });
    this.#front.listen(0, '127.0.0.1');
    await new Promise((resolve) => this.#front.once('listening', resolve));
    this.url = `https://${this.#host}:${String((this.#front.address() as AddressInfo).port)}`;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await (this.plane as ControlPlane | undefined)?.stop();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#front.close(resolve));
    await rm(this.dir, { recursive: true, force: true });
    await this.#dropStore();
  }

  /** Resolves when everything is written that waits now: refusals are recorded after the answer. */
  async settled(): Promise<void> {
    await this.plane.services.store.write(() => Promise.resolve());
  }

  /** Runs an administration command as root of this machine would. */
  async admin<T = Record<string, unknown>>(command: string, args: unknown = {}): Promise<T> {
    return (await runCommand(this.plane.services, command, args, 'uid:0')) as T;
  }

  async #open<In extends AnyMessage, Out extends AnyMessage>(
    identity: Identity,
    options: {
      readonly from: ConstructorParameters<typeof ControlChannel<In, Out>>[1]['fromSchema'];
      readonly to: ConstructorParameters<typeof ControlChannel<In, Out>>[1]['toSchema'];
      readonly hello: Extract<Out, { type: 'hello' }>;
    },
  ): Promise<Peer<In, Out>> {
    const early = {
      messages: [] as In[],
      bundles: [] as Bundle[],
      onMessage: (message: In): void => void early.messages.push(message),
    };
    const channel = await ControlChannel.open<In, Out>({
      dial: {
        url: this.url,
        alpn: controlProtocol,
        serverRole: 'control-plane',
        identity,
      },
      fromSchema: options.from,
      toSchema: options.to,
      hello: options.hello,
      clock: new ControlClock(),
      bundle: () => identity.bundle,
      onMessage: (message) => {
        early.onMessage(message);
      },
      onBundle: (bundle) => {
        early.bundles.push(bundle);
      },
      logger: logger(this.logLines),
      signal: this.#abort.signal,
    });
    return new Peer(identity, channel, early);
  }

  /** The data plane's channel, holding idle sockets of these connectors. */
  async relay(...connectors: readonly ConnectorPeer[]): Promise<RelayPeer> {
    const identity = await loadIdentity(join(this.dir, 'data-plane'));
    if (!identity) throw new Error('no data plane identity');
    return this.relayAs(identity, ...connectors);
  }

  /** The channel of any data plane. */
  async relayAs(identity: Identity, ...connectors: readonly ConnectorPeer[]): Promise<RelayPeer> {
    const peer = await this.#open<ToRelay, FromRelay>(identity, {
      from: fromRelay,
      to: toRelay,
      hello: {
        type: 'hello',
        versions: { min: 1, max: this.version },
        software: 'test',
        bundleVersion: 1,
        tunnels: [],
      },
    });
    for (const connector of connectors) {
      peer.channel.send({
        type: 'slots',
        connector: connector.identity.id as never,
        instance: connector.instance as never,
        idle: 4,
      });
    }
    return peer;
  }

  async enrolConnector(name: string, apps: readonly string[]): Promise<Identity> {
    const { code } = await this.admin<{ code: string }>('invite.connector', {
      name,
      apps,
      ttlMs: 60_000,
      uses: 1,
    });
    return this.enrolConnectorWith(code);
  }

  async enrolConnectorWith(code: string): Promise<Identity> {
    const { identity } = await enrol({
      code: parseEnrolmentCode(code),
      hostname: 'connector',
      platform: 'linux',
      password: null,
      expectRole: 'connector',
    });
    return identity;
  }

  async connectConnector(
    identity: Identity,
    apps: readonly string[],
    hello: { readonly instance?: string; readonly tunnels?: readonly string[] } = {},
  ): Promise<ConnectorPeer> {
    const instance = (hello.instance ?? newId('instance')) as never;
    const peer = await this.#open<ToConnector, FromConnector>(identity, {
      from: fromConnector,
      to: toConnector,
      hello: {
        type: 'hello',
        versions: { min: 1, max: this.version },
        software: 'test',
        bundleVersion: 1,
        instance,
        apps: [...apps],
        tunnels: [...(hello.tunnels ?? [])] as never[],
      },
    });
    return Object.assign(peer, { instance });
  }

  async connector(name: string, apps: readonly string[]): Promise<ConnectorPeer> {
    return this.connectConnector(await this.enrolConnector(name, apps), apps);
  }

  async userCode(name: string, groups: readonly string[]): Promise<string> {
    const { code } = await this.admin<{ code: string }>('invite.user', {
      name,
      groups,
      ttlMs: 60_000,
    });
    return code;
  }

  /** A device of that user, enrolled, signed in and with its channel open. */
  async device(user: string, groups: readonly string[] = ['staff']): Promise<DevicePeer> {
    const { identity } = await enrol({
      code: parseEnrolmentCode(await this.userCode(user, groups)),
      hostname: `${user}-laptop`,
      platform: 'linux',
      password,
      expectRole: 'device',
    });
    return this.connectDevice(identity);
  }

  async connectDevice(identity: Identity, tunnels: readonly string[] = []): Promise<DevicePeer> {
    return this.#open<ToDevice, FromDevice>(identity, {
      from: fromDevice,
      to: toDevice,
      hello: {
        type: 'hello',
        versions: { min: 1, max: this.version },
        software: 'test',
        bundleVersion: 1,
        tunnels: [...tunnels] as never[],
      },
    });
  }

  /** Waits until the control plane has seen the idle sockets that a data plane announced. */
  async untilRouted(app: string, device: DevicePeer): Promise<void> {
    for (;;) {
      const answer = await device.channel.request({ type: 'apps' });
      if (
        answer.type === 'apps' &&
        answer.apps.some((row) => row.name === app && row.state === 'online')
      ) {
        return;
      }
      await delay(20); // a channel takes so many requests and no more
    }
  }
}
