import { createPrivateKey } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { WebSocket } from 'ws';
import { Agent } from '../../../client/agent/agent.ts';
import type { RekeyLimits } from '../../../client/agent/path-turnover.ts';
import { createLogger, type Identity } from '../../../protocol/host/index.ts';
import {
  dataProtocol,
  grantSchema,
  leaseBatchSchema,
  logBatchSchema,
  newId,
  newNoiseKeyPair,
  rawPublicKey,
  rosterEntrySchema,
  signStatement,
  type Grant,
  type LeaseBatch,
  type LogBatch,
  type SigningKey,
  type ToDevice,
} from '../../../protocol/index.ts';
import {
  actAsControlPlane,
  startTestServer,
  type TestServer,
} from '../../support/control-server.ts';
import { TestPki } from '../../support/pki.ts';
import { ConnectorEnd, type ConnectorRole, type KeptEnd } from './fake-connector.ts';

type Message = Record<string, unknown>;

/** One deployment's keys serve every rig: making RSA keys is slow and proves nothing here. */
const pki = new TestPki();
const device = newId('device');
const relay = newId('relay');
const certificates = {
  control: pki.ca.issue({ uris: ['ztna://control-plane/cp'], uses: ['serverAuth'] }),
  data: pki.ca.issue({ uris: [`ztna://data-plane/${relay}`], uses: ['serverAuth'] }),
  device: pki.ca.issue({
    uris: [`ztna://device/${device}`],
    uses: ['clientAuth'],
    notBefore: new Date(Date.now() - 1_000), // young, so that no renewal is due
  }),
};

/** One enrolled device, a control plane that says what a test wants, and a data plane with the connector behind it. */
export class AgentRig {
  readonly pki = pki;
  readonly device = device;
  readonly connector = newId('connector');
  readonly instance = newId('instance');
  readonly relay = relay;
  readonly app = newId('app');
  readonly connectorKeys = newNoiseKeyPair();
  readonly deviceKeys = newNoiseKeyPair();
  /** Everything the agent sent but hello, time and what `answer` answered. */
  readonly received: Message[] = [];
  readonly hellos: Message[] = [];
  /** Ends of the paths that the agent opened. */
  readonly paths: ConnectorEnd[] = [];
  /** Of the wire, on channels that open from here on. */
  version = 1;
  /** What each end of them is to do otherwise. */
  role: Partial<ConnectorRole> = {};
  /** Answers a request; what it returns is sent with the request's id. */
  answer: (message: Message) => Message | undefined = () => undefined;
  control!: TestServer;
  data!: TestServer;
  dir = '';
  #grantStatement = '';
  readonly #kept = new Map<string, KeptEnd>();
  readonly #channels = new Set<WebSocket>();
  readonly #wakes = new Set<() => void>();

  static async start(t: ExecutionContext): Promise<AgentRig> {
    const rig = new AgentRig();
    await rig.#begin();
    t.teardown(() => rig.#stop());
    return rig;
  }

  /** An agent of the device, connected, that asks for `app` ahead when there is one. */
  async agent(t: ExecutionContext, app?: string, rekey?: RekeyLimits): Promise<Agent> {
    const agent = await Agent.start({
      profile: { name: 'default', dir: this.dir },
      identity: this.identity(),
      logger: createLogger({ program: 'test', write: () => undefined }),
      ...(app === undefined ? {} : { app }),
      ...(rekey && { rekey }),
    });
    t.teardown(() => agent.stop());
    return agent;
  }

  identity(): Identity {
    const { keyPem, certificatePem } = certificates.device;
    return {
      id: this.device,
      role: 'device',
      relayUrl: this.control.url,
      rootId: this.pki.rootId,
      tlsKeyPem: keyPem,
      certificatePem,
      signingKey: createPrivateKey(keyPem), // not used here
      noiseKey: this.deviceKeys.privateKey,
      noisePublicKey: rawPublicKey(this.deviceKeys.publicKey),
      bundle: this.pki.bundle,
      profile: { user: 'alice' },
    };
  }

  grant(changes: Partial<Grant> = {}): Grant {
    const nowMs = Date.now();
    return {
      id: newId('grant'),
      version: 1,
      user: newId('user'),
      session: newId('session'),
      device: this.device,
      deviceKey: rawPublicKey(this.deviceKeys.publicKey).toString('base64url'),
      app: this.app,
      connector: this.connector,
      instance: this.instance,
      tunnel: newId('tunnel'),
      generation: 1,
      decision: newId('decision'),
      policy: 1,
      incarnation: 1,
      position: 10,
      issuedAtMs: nowMs,
      expiresAtMs: nowMs + 60_000,
      intervalMs: 20_000,
      holdMs: 300_000,
      sequence: [1, 1],
      untilMs: nowMs + 60_000,
      relays: [this.relay],
      ...changes,
    };
  }

  /** What the control plane answers to an allowed request. */
  permit(grant: Grant = this.grant(), key: SigningKey = this.pki.grantKey): Message {
    const { connector, connectorKeys, app } = this;
    const entry = {
      connector,
      site: newId('site'),
      noiseKey: rawPublicKey(connectorKeys.publicKey).toString('base64url'),
      signingKey: Buffer.alloc(32, 1).toString('base64url'),
      apps: [app],
    };
    this.#grantStatement = signStatement('grant', grantSchema, grant, key);
    return {
      type: 'permit',
      grant: this.#grantStatement,
      roster: signStatement('roster', rosterEntrySchema, entry, this.pki.rosterKey),
      relays: [{ id: this.relay, url: this.data.url }],
      portHint: 5432,
    };
  }

  /** As `permit`, for another path. */
  pathPermit(grant: Grant): Message {
    const { grant: statement, roster, portHint } = this.permit(grant);
    const relays = [{ id: this.relay, url: this.data.url, connectorMs: null }];
    return { type: 'path_permit', grant: statement, roster, relays, portHint };
  }

  /** The connector knows no tunnel any more. */
  forget(): void {
    for (const { keeper } of this.#kept.values()) keeper.close('ERR_TUNNEL_CLOSED', 'test_over');
    this.#kept.clear();
  }

  /** The grant for the next path of a tunnel. */
  nextGrant(grant: Grant, changes: Partial<Grant> = {}): Grant {
    const [fencing, counter] = grant.sequence;
    return this.grant({
      ...grant,
      id: newId('grant'),
      generation: grant.generation + 1,
      sequence: [fencing, counter + 1],
      issuedAtMs: Date.now(),
      expiresAtMs: Date.now() + 60_000,
      ...changes,
    });
  }

  leases(entries: LeaseBatch['entries'], changes: Partial<LeaseBatch> = {}): ToDevice {
    const batch = { connector: this.connector, entries, ...changes };
    const statement = signStatement('lease', leaseBatchSchema, batch, this.pki.grantKey);
    return { type: 'leases', statement };
  }

  log(entries: LogBatch['entries']): ToDevice {
    const completeTo = entries.at(-1)?.position ?? 0;
    const batch = { audience: this.device, incarnation: 1, entries, completeTo };
    return {
      type: 'log',
      statement: signStatement('log', logBatchSchema, batch, this.pki.grantKey),
    };
  }

  /** Sends to the agent. */
  push(message: ToDevice): void {
    for (const channel of this.#channels) channel.send(JSON.stringify(message));
  }

  /** Drops the control channels without a word. */
  dropChannels(): void {
    for (const channel of this.#channels) channel.terminate();
  }

  closeChannels(closeCode: number, text: string): void {
    for (const channel of this.#channels) channel.close(closeCode, text);
  }

  /** Resolves with the first thing that `find` returns. */
  async until<T>(find: () => T | undefined): Promise<T> {
    return new Promise((resolve) => {
      const check = (): void => {
        const found = find();
        if (found === undefined) return;
        this.#wakes.delete(check);
        resolve(found);
      };
      this.#wakes.add(check);
      check();
    });
  }

  async #begin(): Promise<void> {
    this.dir = await mkdtemp(join(tmpdir(), 'ztna-agent-'));
    this.control = await startTestServer({
      pki: this.pki,
      certificate: certificates.control,
      onSocket: (ws) => {
        this.#serveChannel(ws);
      },
    });
    this.data = await startTestServer({
      pki: this.pki,
      alpn: dataProtocol,
      certificate: certificates.data,
      onSocket: (ws) => {
        this.paths.push(new ConnectorEnd(ws, this.#role()));
        this.#wake();
      },
    });
  }

  #role(): ConnectorRole {
    const { relay, connector, instance, connectorKeys } = this;
    const { bundle } = this.pki;
    const grantStatement = this.#grantStatement;
    const nowMs = Date.now();
    const kept = this.#kept;
    const role = { bundle, relay, connector, instance, connectorKeys, grantStatement, nowMs, kept };
    return { ...role, ...this.role };
  }

  #serveChannel(ws: WebSocket): void {
    this.#channels.add(ws);
    ws.once('close', () => this.#channels.delete(ws));
    ws.on('message', (data) => {
      const message = JSON.parse((data as Buffer).toString()) as Message;
      if (message['type'] === 'hello') this.hellos.push(message);
      this.#wake();
    });
    actAsControlPlane(ws, this.pki, {
      welcome: { version: this.version },
      onMessage: (message) => {
        const answer = this.answer(message);
        if (answer) ws.send(JSON.stringify(withId(answer, message['id'])));
        else this.received.push(message);
        this.#wake();
      },
    });
  }

  #wake(): void {
    for (const wake of [...this.#wakes]) wake();
  }

  async #stop(): Promise<void> {
    this.forget();
    await this.control.stop();
    await this.data.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** The id stands behind the type, as the canonical form wants it. */
function withId({ type, ...rest }: Message, id: unknown): Message {
  return { type, id, ...rest };
}
