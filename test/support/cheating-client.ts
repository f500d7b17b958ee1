import { createPublicKey } from 'node:crypto';
import { join } from 'node:path';
import {
  ClientHandshake,
  controlProtocol,
  dataProtocol,
  encodeMessage,
  fromDevice,
  grantHeader,
  readFrames,
  toDevice,
  tunnelPath,
  wireVersions,
  x25519PublicKey,
  type Frame,
  type FromDevice,
  type Grant,
  type NoiseKeyPair,
  type RelayId,
  type RosterEntry,
  type ToDevice,
  type Transport,
  type VerifiedPermit,
} from '../../protocol/index.ts';
import {
  ControlChannel,
  ControlClock,
  createLogger,
  dialWebSocket,
  loadIdentity,
  type Identity,
  type RequestOf,
} from '../../protocol/host/index.ts';
import { encodeCount, encodeFrame, frameHeaderBytes, FrameType } from '../../protocol/frame.ts';
import type { Machine } from './deployment.ts';
import { claimOf } from './insider.ts';
import { DataEnd, type Credentials } from './relay-rig.ts';

/** A permit as it came from the control plane, believed without a look. */
export interface RawPermit {
  readonly grant: string;
  readonly roster: string;
  readonly relay: RelayId;
}

/**
 * An enrolled machine with a client of its own making: it has the keys and speaks the protocol, but checks nothing
 * and sends whatever a test wants sent.
 */
export class CheatingClient {
  readonly identity: Identity;
  readonly #clock: ControlClock;
  readonly #channel: ControlChannel<ToDevice, FromDevice>;
  readonly #stopping: AbortController;
  readonly #ends = new Set<DataEnd>();

  private constructor(
    identity: Identity,
    clock: ControlClock,
    channel: ControlChannel<ToDevice, FromDevice>,
    stopping: AbortController,
  ) {
    this.identity = identity;
    this.#clock = clock;
    this.#channel = channel;
    this.#stopping = stopping;
  }

  /** Takes an enrolled machine's keys and opens a control channel with them. */
  static async open(machine: Pick<Machine, 'home'>): Promise<CheatingClient> {
    const identity = await identityOf(machine);
    const stopping = new AbortController();
    const clock = new ControlClock();
    const channel = await ControlChannel.open<ToDevice, FromDevice>({
      dial: {
        url: identity.relayUrl,
        alpn: controlProtocol,
        serverRole: 'control-plane',
        identity,
      },
      fromSchema: fromDevice,
      toSchema: toDevice,
      hello: deviceHello(identity),
      clock,
      bundle: () => identity.bundle,
      onMessage: () => undefined,
      logger: createLogger({ program: 'cheat', write: () => undefined }),
      signal: stopping.signal,
    });
    return new CheatingClient(identity, clock, channel, stopping);
  }

  get nowMs(): number {
    return this.#clock.require();
  }

  /** Asks the control plane. Throws its refusal. */
  async request(message: RequestOf<FromDevice>): Promise<ToDevice> {
    return this.#channel.request(message);
  }

  async permit(app: string): Promise<RawPermit> {
    const answer = await this.request({ type: 'grant', app });
    if (answer.type !== 'permit') throw new Error(`answered with ${answer.type}`);
    const relay = answer.relays[0]?.id;
    if (relay === undefined) throw new Error('no relay was named');
    return { grant: answer.grant, roster: answer.roster, relay };
  }

  /** Opens a data WebSocket with any headers, path and certificate. */
  async dial(
    headers: Record<string, string>,
    options: { readonly path?: string; readonly credentials?: Credentials } = {},
  ): Promise<DataEnd> {
    const { path = tunnelPath, credentials = this.identity } = options;
    const ws = await dialWebSocket({
      url: this.identity.relayUrl,
      alpn: dataProtocol,
      serverRole: 'data-plane',
      identity: credentials,
      path,
      headers,
    });
    const end = new DataEnd(ws);
    this.#ends.add(end);
    return end;
  }

  /** Presents the permit's grant at the data plane. */
  present(permit: Pick<RawPermit, 'grant'>): Promise<DataEnd> {
    return this.dial({ [grantHeader]: permit.grant });
  }

  /** The client's handshake for a permit, with the machine's own static or another. */
  handshake(permit: RawPermit, deviceKeys: NoiseKeyPair = this.deviceKeys): ClientHandshake {
    const { noiseKey } = claimOf<RosterEntry>(permit.roster);
    const believed = {
      grant: { ...claimOf<Grant>(permit.grant), statement: permit.grant },
      rosterStatement: permit.roster,
      connectorKey: x25519PublicKey(Buffer.from(noiseKey, 'base64url')),
    } as unknown as VerifiedPermit;
    const { rootId } = this.identity;
    return new ClientHandshake({ permit: believed, rootId, relay: permit.relay, deviceKeys });
  }

  get deviceKeys(): NoiseKeyPair {
    const { noiseKey } = this.identity;
    return { privateKey: noiseKey, publicKey: createPublicKey(noiseKey) };
  }

  /**
   * Presents a grant, then handshakes for `within` (the same permit unless a test cheats). Answers the tunnel, or the
   * code with which somebody closed it before the connector's first record.
   */
  async open(
    permit: RawPermit,
    { within = permit, deviceKeys = this.deviceKeys } = {},
  ): Promise<CheatTunnel | string> {
    const end = await this.present(permit);
    const handshake = this.handshake(within, deviceKeys);
    end.send(handshake.message1());
    const refused = end.closeCode();
    await Promise.race([end.until(() => end.binary.length > 0), refused]);
    const [message2] = end.binary;
    if (!message2) return refused;
    const { message3, transport } = handshake.receiveMessage2(message2);
    end.send(message3);
    const tunnel = new CheatTunnel(end, transport);
    await Promise.race([tunnel.until(() => tunnel.frames.length > 0), refused]);
    return tunnel.frames.length > 0 ? tunnel : refused;
  }

  /** As `open`, where the tunnel must open. */
  async mustOpen(app: string): Promise<CheatTunnel> {
    const opened = await this.open(await this.permit(app));
    if (typeof opened === 'string') throw new Error(`the tunnel did not open: ${opened}`);
    return opened;
  }

  async close(): Promise<void> {
    for (const end of this.#ends) end.ws.terminate();
    this.#stopping.abort();
    await this.#channel.closed;
  }
}

/** A proved client's end of a tunnel that sends any bytes as records. */
export class CheatTunnel {
  readonly end: DataEnd;
  /** Every frame that the connector sent. */
  readonly frames: Frame[] = [];
  readonly #transport: Transport;
  #opened = 1; // binary messages seen; the first was handshake message 2
  readonly #waiting = new Set<() => void>();
  /** Tell the connector what was heard, as it expects before it sends much. */
  isTelling = false;

  constructor(end: DataEnd, transport: Transport) {
    this.end = end;
    this.#transport = transport;
    end.ws.on('message', () => {
      this.#openRecords();
    });
  }

  #openRecords(): void {
    for (; this.#opened < this.end.binary.length; this.#opened++) {
      const record = this.end.binary[this.#opened] ?? Buffer.alloc(0);
      this.frames.push(...readFrames(this.#transport.opener.open(record)));
    }
    if (this.isTelling) this.#tellHeard();
    for (const wake of [...this.#waiting]) wake();
  }

  #tellHeard(): void {
    const counted = this.frames.filter(({ type }) => type <= FrameType.Reset);
    const bytes = counted.reduce((sum, frame) => sum + frameHeaderBytes + frame.payload.length, 0);
    this.frame(FrameType.Heard, 0, 0, encodeCount(bytes));
  }

  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        if (!condition()) return;
        this.#waiting.delete(wake);
        resolve();
      };
      this.#waiting.add(wake);
    });
  }

  /** Seals any plaintext as the next record and sends it. */
  send(...plaintext: Buffer[]): void {
    this.sendSealed(this.seal(...plaintext));
  }

  sendSealed(record: Buffer): void {
    this.end.send(record);
  }

  seal(...plaintext: Buffer[]): Buffer {
    return Buffer.concat(this.#transport.sealer.seal([Buffer.concat(plaintext)]));
  }

  frame(type: FrameType, stream: number, number: number, payload?: Uint8Array): void {
    this.send(encodeFrame(type, stream, number, payload));
  }

  /** The code with which the tunnel was closed. */
  closeCode(): Promise<string> {
    return this.end.closeCode();
  }
}

/** The identity that `ztna enroll` left on a machine. */
export async function identityOf(machine: Pick<Machine, 'home'>): Promise<Identity> {
  const identity = await loadIdentity(join(machine.home, 'default'));
  if (!identity) throw new Error('this machine is not enrolled');
  return identity;
}

/** What a device greets with. */
export function deviceHello(
  identity: Pick<Identity, 'bundle'>,
): Extract<FromDevice, { type: 'hello' }> {
  return {
    type: 'hello',
    versions: wireVersions,
    software: 'cheat/1',
    bundleVersion: identity.bundle.version,
    tunnels: [],
  };
}

export const encodeFromDevice = (message: FromDevice): string => encodeMessage(fromDevice, message);
