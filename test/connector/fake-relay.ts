import {
  ClientHandshake,
  ClientResume,
  controlProtocol,
  dataProtocol,
  decodeMessage,
  encodeMessage,
  newId,
  rawPublicKey,
  resumeSecretOf,
  fromConnector,
  fromSlot,
  signStatement,
  timeSchema,
  toConnector,
  toSlot,
  TunnelEndpoint,
  verifyBundle,
  type AppId,
  type Bundle,
  type FromConnector,
  type FromSlot,
  type Grant,
  type LeaseBatch,
  type LogBatch,
  type NoiseKeyPair,
  type ResumeSecret,
  type ToConnector,
  type TunnelStream,
  type Transport,
  type VerifiedPermit,
  type ZtnaError,
} from '../../protocol/index.ts';
import { PathKeeper, type Identity } from '../../protocol/host/index.ts';
import { startTestServer, type TestServer } from '../support/control-server.ts';
import { TestCa, type TestPki } from '../support/pki.ts';
import { StreamLog } from '../support/tunnel-pair.ts';
import { Parties, startMs } from './fixture.ts';
import type { WebSocket } from 'ws';

/** Lets tests wait for what others do. */
class Waiting {
  readonly #waiters = new Set<() => void>();

  wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  until<T>(find: () => T | undefined | false): Promise<T> {
    return new Promise((resolve) => {
      const waiter = () => {
        const found = find();
        if (found === undefined || found === false) return;
        this.#waiters.delete(waiter);
        resolve(found);
      };
      this.#waiters.add(waiter);
      waiter();
    });
  }
}

type Told<T extends FromConnector['type']> = Extract<FromConnector, { type: T }>;

/** Control plane and data plane as one connector sees them, over real TLS WebSockets on loopback. */
export class FakeRelay extends Waiting {
  readonly parties = new Parties();
  readonly ca = new TestCa();
  readonly told: FromConnector[] = [];
  readonly idle: Slot[] = [];
  slots = 2;
  /** Whether idle sockets are closed again at once, and how many were. */
  refusesSlots = false;
  refused = 0;
  /** Of the wire, as the welcome says. */
  version = 1;
  appIds: [string, AppId][] = [['app', this.parties.app]];
  channel: WebSocket | undefined;
  bundle!: Bundle;
  #bundleStatement = '';
  readonly #clients: FakeClient[] = [];
  #control!: TestServer;
  #data!: TestServer;
  readonly #startedAtMs = performance.now();

  static async start(version = 1): Promise<FakeRelay> {
    const relay = new FakeRelay();
    relay.version = version;
    const { ca, parties } = relay;
    relay.#bundleStatement = parties.signBundle({ authorities: [ca.certificatePem] });
    const pinned = { rootId: parties.bundle.rootId, minVersion: 0 };
    relay.bundle = verifyBundle(relay.#bundleStatement, pinned, startMs);
    const server = (role: string, alpn: string, onSocket: (ws: WebSocket) => void) =>
      startTestServer({
        pki: { ca } as unknown as TestPki,
        certificate: ca.issue({ uris: [`ztna://${role}`] }),
        alpn,
        onSocket,
      });
    relay.#control = await server('control-plane/cp', controlProtocol, (ws) => {
      relay.#greet(ws);
    });
    relay.#data = await server(`data-plane/${parties.relay}`, dataProtocol, (ws) => {
      relay.#keep(new Slot(ws));
    });
    return relay;
  }

  /** Control time: its own, years from the machine's clock. */
  nowMs(): number {
    return Math.round(startMs + performance.now() - this.#startedAtMs);
  }

  identity(): Identity {
    const { connector, connectorKeys, grantKey } = this.parties;
    const { keyPem, certificatePem } = this.ca.issue({ uris: [`ztna://connector/${connector}`] });
    return {
      id: connector,
      role: 'connector',
      relayUrl: this.#control.url,
      rootId: this.bundle.rootId,
      tlsKeyPem: keyPem,
      certificatePem,
      signingKey: grantKey.privateKey,
      noiseKey: connectorKeys.privateKey,
      noisePublicKey: rawPublicKey(connectorKeys.publicKey),
      bundle: this.bundle,
      profile: {},
    };
  }

  send(message: ToConnector): void {
    this.channel?.send(encodeMessage(toConnector, message));
  }

  pushLeases(entries: LeaseBatch['entries'], changes: Partial<LeaseBatch> = {}): void {
    this.send({ type: 'leases', statement: this.parties.signLeases(entries, changes) });
  }

  pushLog(changes: Partial<LogBatch>): void {
    this.send({ type: 'log', statement: this.parties.signLog(changes) });
  }

  /** The first message of that type that `matches`, received already or to come. */
  heard<T extends FromConnector['type']>(
    type: T,
    matches: (message: Told<T>) => boolean = () => true,
  ): Promise<Told<T>> {
    return this.until(() =>
      this.told.find((m): m is Told<T> => m.type === type && matches(m as Told<T>)),
    );
  }

  /** A grant that is good now, for this connector's process. */
  grant(changes: Partial<Grant> = {}): Grant {
    const hello = this.told.findLast((message) => message.type === 'hello');
    const nowMs = this.nowMs();
    return this.parties.grant({
      ...(hello && { instance: hello.instance }),
      issuedAtMs: nowMs,
      expiresAtMs: nowMs + 60_000,
      untilMs: nowMs + 60_000,
      ...changes,
    });
  }

  /** Gives the tunnel to an idle socket, as the data plane would. */
  async assign(grant: Grant, statement = this.parties.signGrant(grant)): Promise<Slot> {
    const slot = await this.until(() => this.idle.shift());
    slot.ws.send(encodeMessage(toSlot, { type: 'assign', tunnel: grant.tunnel, grant: statement }));
    await slot.until(() => slot.answer !== undefined || slot.ending !== undefined);
    return slot;
  }

  /** A tunnel's client, past its handshake; the connector may accept or refuse it yet. */
  async client(grant: Grant, early?: Buffer): Promise<FakeClient> {
    const statement = this.parties.signGrant(grant);
    const slot = await this.assign(grant, statement);
    const permit = this.parties.permitOf(statement, this.nowMs(), grant.device);
    const client = await FakeClient.connect(this.parties, slot, permit, early);
    this.#clients.push(client);
    return client;
  }

  /** A whole tunnel, accepted. */
  async tunnel(changes: Partial<Grant> = {}): Promise<FakeClient> {
    const client = await this.client(this.grant(changes));
    await client.accepted;
    return client;
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.close();
    await Promise.all([this.#control.stop(), this.#data.stop()]);
  }

  #greet(ws: WebSocket): void {
    ws.on('message', (data: Buffer) => {
      const message = decodeMessage(fromConnector, data);
      if (message.type === 'time') {
        const payload = { nonce: message.nonce, timeMs: this.nowMs() };
        const statement = signStatement('time', timeSchema, payload, this.parties.grantKey);
        ws.send(encodeMessage(toConnector, { type: 'time', statement }));
        return;
      }
      this.told.push(message);
      if (message.type === 'hello') {
        this.channel = ws;
        this.send({
          type: 'welcome',
          version: this.version,
          connector: this.parties.connector,
          name: 'local',
          bundle: null,
          appIds: [...this.appIds],
          relays: [{ id: this.parties.relay, url: this.#data.url }],
          slots: this.slots,
        });
        this.pushLog({});
      }
      this.wake();
    });
  }

  #keep(slot: Slot): void {
    if (this.refusesSlots) {
      slot.ws.close(4500, 'ERR_RELAY_UNAVAILABLE');
      this.refused++;
      this.wake();
      return;
    }
    this.idle.push(slot);
    slot.ws.once('close', () => {
      const index = this.idle.indexOf(slot);
      if (index >= 0) this.idle.splice(index, 1);
      this.wake();
    });
    this.wake();
  }
}

/** The data plane's end of one socket that the connector dialled. */
export class Slot extends Waiting {
  readonly ws: WebSocket;
  answer: FromSlot | undefined;
  binary: Buffer[] = [];
  ending: { readonly code: number; readonly text: string } | undefined;

  constructor(ws: WebSocket) {
    super();
    this.ws = ws;
    ws.on('message', this.#onMessage);
    ws.once('close', (code, text) => {
      this.ending = { code, text: text.toString() };
      this.wake();
    });
  }

  nextBinary(): Promise<Buffer> {
    return this.until(() => this.binary.shift());
  }

  closed(): Promise<{ readonly code: number; readonly text: string }> {
    return this.until(() => this.ending);
  }

  /** Leaves further messages to another. */
  release(): void {
    this.ws.off('message', this.#onMessage);
  }

  readonly #onMessage = (data: Buffer, isBinary: boolean) => {
    if (isBinary) this.binary.push(data);
    else this.answer = decodeMessage(fromSlot, data);
    this.wake();
  };
}

/** What a client does otherwise when it takes its tunnel up again. */
export interface ResumeChanges {
  readonly grant?: Partial<Grant>;
  /** As signed before, in place of another grant. */
  readonly statement?: string;
  readonly deviceKeys?: NoiseKeyPair;
  readonly secret?: ResumeSecret;
  /** Runs when the handshake is through, before the proof. */
  readonly beforeProof?: () => Promise<void> | void;
}

/** A client's end of a tunnel, straight on the data plane's end of the connector's socket. */
export class FakeClient {
  grant: Grant;
  slot: Slot;
  /** What proves it to be the tunnel's. */
  readonly secret: ResumeSecret;
  /** The grant of its present path. */
  statement: string;
  /** Resolves when the connector accepted. */
  readonly accepted: Promise<void>;
  /** Why the tunnel ended. */
  readonly ended: Promise<ZtnaError>;
  readonly #keeper: PathKeeper;

  static async connect(
    parties: Parties,
    slot: Slot,
    permit: VerifiedPermit,
    early?: Buffer,
  ): Promise<FakeClient> {
    const { bundle, relay, deviceKeys } = parties;
    const handshake = new ClientHandshake({ permit, rootId: bundle.rootId, relay, deviceKeys });
    slot.ws.send(handshake.message1());
    const { message3, transport } = handshake.receiveMessage2(await slot.nextBinary());
    slot.ws.send(message3);
    return new FakeClient(slot, permit, transport, early);
  }

  private constructor(
    slot: Slot,
    permit: VerifiedPermit,
    transport: Transport,
    early: Buffer | undefined,
  ) {
    this.grant = permit.grant;
    this.statement = permit.grant.statement;
    this.secret = resumeSecretOf(transport);
    this.slot = slot;
    const accepted = Promise.withResolvers<undefined>();
    const ended = Promise.withResolvers<ZtnaError>();
    this.accepted = accepted.promise;
    this.ended = ended.promise;
    slot.release();
    this.#keeper = new PathKeeper({
      path: { webSocket: slot.ws, sealer: transport.sealer, opener: transport.opener },
      holdMs: permit.grant.holdMs,
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'client',
          permit,
          handlers: {
            ...handlers,
            onAccept: () => {
              accepted.resolve(undefined);
            },
          },
        }),
      mayPass: () => true,
      onDetached: () => undefined,
      onEnd: ended.resolve,
    });
    this.#keeper.start();
    if (early) this.open(early);
  }

  get isDetached(): boolean {
    return this.#keeper.isDetached;
  }

  /** Asks for another path; answers the code with which the connector refused it, or undefined once it is taken. */
  async resume(relay: FakeRelay, changes: ResumeChanges = {}): Promise<string | undefined> {
    const { parties } = relay;
    const nowMs = relay.nowMs();
    const [fencing, counter] = this.grant.sequence;
    const grant: Grant = {
      ...this.grant,
      id: newId('grant'),
      generation: this.grant.generation + 1,
      sequence: [fencing, counter + 1],
      issuedAtMs: nowMs,
      expiresAtMs: nowMs + 60_000,
      untilMs: nowMs + 60_000,
      ...changes.grant,
    };
    const statement = changes.statement ?? parties.signGrant(withoutStatement(grant));
    const slot = await relay.assign(grant, statement);
    const handshake = parties.uncheckedHandshake(statement, changes.deviceKeys);
    slot.ws.send(handshake.message1());
    const { message3, transport } = handshake.receiveMessage2(await slot.nextBinary());
    slot.ws.send(message3);
    await changes.beforeProof?.();
    const { sealer, opener } = transport;
    const resume = new ClientResume({ secret: changes.secret ?? this.secret, transport });
    slot.ws.send(Buffer.concat(sealer.seal(resume.request())));
    await slot.until(() => slot.binary.length > 0 || slot.ending !== undefined);
    const answer = slot.binary.shift();
    if (answer === undefined) return slot.ending?.text;
    const resumed = resume.receive(opener.open(answer));
    slot.release();
    const early = slot.binary.splice(0);
    this.#keeper.replace({ webSocket: slot.ws, sealer, opener, early }, resumed);
    this.slot = slot;
    this.grant = grant;
    this.statement = statement;
    return undefined;
  }

  open(firstBytes?: Buffer): FakeStream {
    return new FakeStream(this.#keeper.endpoint.open(firstBytes));
  }

  close(): void {
    this.#keeper.close('ERR_TUNNEL_CLOSED', 'client_closed');
  }
}

/** A stream with what it heard, to be waited for. */
export class FakeStream extends Waiting {
  readonly stream: TunnelStream;
  readonly #log: StreamLog;

  constructor(stream: TunnelStream) {
    super();
    this.stream = stream;
    const wake = () => {
      this.wake();
    };
    this.#log = new (class extends StreamLog {
      override onData(chunk: Buffer): void {
        super.onData(chunk);
        wake();
      }
      override onEnd(): void {
        super.onEnd();
        wake();
      }
      override onReset(code: string): void {
        super.onReset(code);
        wake();
      }
    })(stream);
  }

  /** Everything received, once that much has come. */
  bytes(count: number): Promise<Buffer> {
    return this.until(() => this.#log.receivedBytes >= count && this.#log.bytes);
  }

  /** `end` or `reset <code>`, once it was heard. */
  outcome(): Promise<string> {
    return this.until(() => this.#log.events.find((event) => event !== 'writable'));
  }
}

/** A grant as it is signed; what verified it has added its text. */
function withoutStatement(grant: Grant): Grant {
  const entries = Object.entries(grant).filter(([name]) => name !== 'statement');
  return Object.fromEntries(entries) as unknown as Grant;
}
