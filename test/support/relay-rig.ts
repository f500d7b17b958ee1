import './kept-rsa-keys.ts';
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { WebSocket } from 'ws';
import {
  dataProtocol,
  decodeMessage,
  encodeMessage,
  fromSlot,
  grantHeader,
  instanceHeader,
  rootIdOf,
  rawPublicKey,
  slotPath,
  toSlot,
  tunnelPath,
  verifyBundle,
  type Bundle,
  type ErrorCode,
  type FromSlot,
  type Grant,
  type InstanceId,
  type Assign,
} from '../../protocol/index.ts';
import {
  createLogger,
  dialWebSocket,
  KnownRelays,
  type Identity,
} from '../../protocol/host/index.ts';
import {
  createCertificateAuthority,
  issueCertificate,
  type LeafRequest,
} from '../../relay/control-plane/authority/certificate.ts';
import { controlSocketOf, DataPlane } from '../../relay/data-plane/data-plane.ts';
import { TestAuthority } from './authority.ts';
import { FakeControlPlane } from './fake-control-plane.ts';

/** One key serves every certificate of the tests: making RSA keys is slow and proves nothing here. */
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
const hourMs = 3_600_000;

interface CertificateAuthority {
  readonly certificatePem: string;
  readonly privateKey: KeyObject;
}

export async function newCertificateAuthority(): Promise<CertificateAuthority> {
  const { keyPem: caKey, certificatePem } = await createCertificateAuthority(Date.now());
  return { certificatePem, privateKey: createPrivateKey(caKey) };
}

/** What a dialler shows. */
export type Credentials = Pick<Identity, 'tlsKeyPem' | 'certificatePem' | 'bundle'>;

/** A data plane in this process on loopback, with a control plane that a test plays. */
export class RelayRig {
  readonly authority = new TestAuthority();
  readonly log: string[] = [];
  readonly #open = new Set<WebSocket>();
  #dir = '';
  #ca!: CertificateAuthority;
  bundle!: Bundle;
  control!: FakeControlPlane;
  plane!: DataPlane;
  device!: Credentials;
  connector!: Credentials;

  static async start(options: { readonly silent?: 'time' | 'log' } = {}): Promise<RelayRig> {
    const rig = new RelayRig();
    const { authority } = rig;
    rig.#dir = await mkdtemp(join(tmpdir(), 'ztna-rig-'));
    rig.#ca = await newCertificateAuthority();
    rig.bundle = rig.bundleOf([rig.#ca.certificatePem], 1);
    rig.device = await rig.credentials('device', authority.device);
    rig.connector = await rig.credentials('connector', authority.connector);
    const socketPath = controlSocketOf(rig.#dir);
    await mkdir(dirname(socketPath), { recursive: true });
    const server = await rig.credentials('control-plane', 'cp');
    rig.control = await FakeControlPlane.start({
      socketPath,
      keyPem: server.tlsKeyPem,
      certificatePem: server.certificatePem,
      authorities: [rig.#ca.certificatePem],
      grantKey: authority.grantKey,
      relay: authority.relay,
    });
    if (options.silent) rig.control.silent.add(options.silent);
    const identity = await rig.identity();
    rig.plane = new DataPlane({
      identity,
      listen: { host: '127.0.0.1', port: 0 },
      controlSocket: socketPath,
      known: new KnownRelays({
        bundle: () => identity.bundle,
        logger: createLogger({ program: 'test', write: () => undefined }),
      }),
      logger: createLogger({
        program: 'test',
        level: 'debug',
        format: 'json',
        write: (line) => (process.env['RIG_LOG'] ? console.error(line) : rig.log.push(line)),
      }),
      software: 'test',
      save: () => Promise.resolve(),
    });
    await rig.plane.start();
    if (!options.silent) await rig.plane.ready;
    return rig;
  }

  bundleOf(authorities: readonly string[], version: number): Bundle {
    const { root } = this.authority;
    const nowMs = Date.now();
    const statement = this.authority.signBundle({
      authorities,
      version,
      notAfterMs: nowMs + hourMs,
    });
    const rootId = rootIdOf(rawPublicKey(root.privateKey));
    return verifyBundle(statement, { rootId, minVersion: 1 }, nowMs);
  }

  async identity(): Promise<Identity> {
    const { deviceKeys, relay, root } = this.authority;
    return {
      ...(await this.credentials('data-plane', relay)),
      id: relay,
      role: 'data-plane',
      relayUrl: 'https://127.0.0.1:443',
      rootId: this.bundle.rootId,
      signingKey: root.privateKey,
      noiseKey: deviceKeys.privateKey,
      noisePublicKey: rawPublicKey(deviceKeys.publicKey),
      profile: {},
    };
  }

  /** A certificate of the rig's authority, or of another. */
  async credentials(
    role: LeafRequest['role'],
    id: string,
    changes: Partial<LeafRequest> & { readonly ca?: CertificateAuthority } = {},
  ): Promise<Credentials> {
    const { ca = this.#ca, ...rest } = changes;
    const request = { role, id, hosts: ['127.0.0.1'], lifeMs: hourMs, nowMs: Date.now(), ...rest };
    const { pem } = await issueCertificate(ca, publicKey, request);
    return { tlsKeyPem: keyPem, certificatePem: pem, bundle: this.bundle };
  }

  get url(): string {
    return `https://127.0.0.1:${this.plane.port}`;
  }

  /** A grant that is good now for the rig's device, connector and relay. */
  grant(changes: Partial<Grant> = {}): { readonly statement: string; readonly grant: Grant } {
    const nowMs = Date.now();
    const grant = this.authority.grant({
      issuedAtMs: nowMs,
      expiresAtMs: nowMs + 60_000,
      untilMs: nowMs + 60_000,
      incarnation: this.control.incarnation,
      position: this.control.position,
      ...changes,
    });
    return { statement: this.authority.signGrant(grant), grant };
  }

  async dial(
    path: string,
    credentials: Credentials,
    headers: Record<string, string>,
  ): Promise<DataEnd> {
    const ws = await dialWebSocket({
      url: this.url,
      alpn: dataProtocol,
      serverRole: 'data-plane',
      identity: credentials,
      path,
      headers,
    });
    this.#open.add(ws);
    return new DataEnd(ws);
  }

  client(statement: string, credentials: Credentials = this.device): Promise<DataEnd> {
    return this.dial(tunnelPath, credentials, { [grantHeader]: statement });
  }

  slot(
    instance: InstanceId = this.authority.instance,
    credentials: Credentials = this.connector,
  ): Promise<DataEnd> {
    return this.dial(slotPath, credentials, { [instanceHeader]: instance });
  }

  /** A slot that takes the next assignment, told to the control plane as idle. */
  async idleSlot(instance: InstanceId = this.authority.instance): Promise<DataEnd> {
    const before = this.control.received.length;
    const slot = await this.slot(instance);
    await this.control.until(() =>
      this.control.received
        .slice(before)
        .some((m) => m.type === 'slots' && m.instance === instance && m.idle > 0),
    );
    return slot;
  }

  /** A whole tunnel: both ends, joined. */
  async tunnel(
    changes: Partial<Grant> = {},
  ): Promise<{ client: DataEnd; connector: DataEnd; grant: Grant }> {
    const connector = await this.idleSlot();
    const { statement, grant } = this.grant(changes);
    const [client] = await Promise.all([this.client(statement), connector.accept()]);
    return { client, connector, grant };
  }

  async stop(): Promise<void> {
    for (const ws of this.#open) ws.terminate();
    await this.plane.stop();
    await this.control.stop();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** One end of a data WebSocket as a test holds it: everything that came, and how it was closed. */
export class DataEnd {
  readonly ws: WebSocket;
  readonly binary: Buffer[] = [];
  readonly texts: string[] = [];
  bytes = 0;
  /** Close text and code, once closed. */
  readonly closed: Promise<{ readonly code: number; readonly text: string }>;
  readonly #waiting = new Set<() => void>();

  constructor(ws: WebSocket) {
    this.ws = ws;
    this.closed = new Promise((resolve) => {
      ws.once('close', (code, text) => {
        resolve({ code, text: text.toString() });
      });
    });
    ws.on('message', (data: Buffer, isBinary) => {
      if (isBinary) {
        this.binary.push(data);
        this.bytes += data.length;
      } else this.texts.push(data.toString());
      for (const waiter of [...this.#waiting]) waiter();
    });
  }

  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => {
      const waiter = () => {
        if (!condition()) return;
        this.#waiting.delete(waiter);
        resolve();
      };
      this.#waiting.add(waiter);
    });
  }

  send(data: Buffer | string): void {
    this.ws.send(data);
  }

  answer(message: FromSlot): void {
    this.ws.send(encodeMessage(fromSlot, message));
  }

  /** The assignment that came, or comes next. */
  async assignment(): Promise<Assign> {
    await this.until(() => this.texts.length > 0);
    return decodeMessage(toSlot, this.texts[0] ?? '') as Assign;
  }

  async accept(): Promise<Assign> {
    const assign = await this.assignment();
    this.answer({ type: 'assigned', tunnel: assign.tunnel });
    return assign;
  }

  /** The code that the relay closed it with. */
  async closeCode(): Promise<ErrorCode> {
    return (await this.closed).text as ErrorCode;
  }
}
