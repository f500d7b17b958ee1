import { createPublicKey } from 'node:crypto';
import type { WebSocket } from 'ws';
import {
  ClientHandshake,
  errorRow,
  fromCloseFrame,
  Lease,
  TunnelEndpoint,
  ZtnaError,
  type ErrorCode,
  type RelayId,
  type Sequence,
  type TunnelStream,
  type VerifiedGrant,
  type VerifiedPermit,
} from '../../protocol/index.ts';
import { RecordPump, type ControlClock, type Identity } from '../../protocol/host/index.ts';
import { watchPath } from './path-watch.ts';

/** From the upgrade to the connector's ACCEPT. */
const openWithinMs = 10_000;

/** How long an end without a reason waits for one to come over the control channel. */
const reasonWithinMs = 1_000;

export interface TunnelOptions {
  readonly permit: VerifiedPermit;
  readonly relay: RelayId;
  readonly identity: Pick<Identity, 'rootId' | 'noiseKey'>;
  /** A data WebSocket that this relay has just accepted for the permit's grant. */
  readonly webSocket: WebSocket;
  readonly clock: ControlClock;
}

/**
 * One tunnel on one path. Streams may be opened as soon as the connector has proved itself; `accepted` tells when it
 * has believed the grant too.
 *
 *   handshaking ──message 3──▶ proved ──ACCEPT──▶ open ──▶ closed
 *   any ──lease over, revoked, path lost, close()──▶ closed: all streams are reset
 */
export class Tunnel {
  readonly grant: VerifiedGrant<'client'>;
  /** Resolves at the connector's ACCEPT; rejects when the tunnel ends before. */
  readonly accepted: Promise<undefined>;
  /** Why the tunnel ended. Never rejects. */
  readonly closed: Promise<ZtnaError>;
  /** Called after each renewal that counted. */
  onVerified: () => void = () => undefined;

  readonly #clock: ControlClock;
  readonly #lease: Lease;
  readonly #pump: RecordPump;
  #settle!: (error: ZtnaError) => void;
  #hasEnded = false;
  #reasonTimer: NodeJS.Timeout | undefined;

  /**
   * Carries out the handshake. Throws ERR_HANDSHAKE_FAILED when the other end is not the connector of the permit,
   * ERR_HANDSHAKE_TIMEOUT, or the code with which the path was closed.
   */
  static async open(options: TunnelOptions): Promise<Tunnel> {
    const { permit, relay, identity, webSocket } = options;
    try {
      const handshake = new ClientHandshake({
        permit,
        rootId: identity.rootId,
        relay,
        deviceKeys: {
          privateKey: identity.noiseKey,
          publicKey: createPublicKey(identity.noiseKey),
        },
      });
      const message2 = firstMessage(webSocket);
      webSocket.send(handshake.message1());
      const { message3, transport } = handshake.receiveMessage2(await message2);
      if (webSocket.readyState !== webSocket.OPEN) throw new ZtnaError('ERR_TUNNEL_PATH_LOST');
      webSocket.send(message3);
      return new Tunnel(options, transport);
    } catch (error) {
      webSocket.terminate();
      throw error;
    }
  }

  private constructor(
    { permit, webSocket, clock }: TunnelOptions,
    transport: ReturnType<ClientHandshake['receiveMessage2']>['transport'],
  ) {
    this.grant = permit.grant;
    this.#clock = clock;
    this.#lease = new Lease(permit.grant);
    this.closed = new Promise((resolve) => {
      this.#settle = (error) => {
        resolve(withRef(error, this.grant.decision));
      };
    });
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.accepted = promise;
    this.#pump = new RecordPump({
      webSocket,
      sealer: transport.sealer,
      opener: transport.opener,
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'client',
          permit,
          handlers: { ...handlers, onAccept: () => resolve(undefined) },
        }),
      mayPass: () => this.#isLeaseLive(),
      onEnd: (error) => {
        this.#onEnd(error);
      },
    });
    const timer = setTimeout(() => {
      this.end('ERR_HANDSHAKE_TIMEOUT', 'no_answer');
    }, openWithinMs);
    const finish = (): void => clearTimeout(timer);
    this.accepted.then(finish, finish);
    void this.closed.then(reject);
    watchPath(webSocket, {
      hasStreams: () => this.#pump.endpoint.streamCount > 0,
      onDead: () => {
        this.end('ERR_TUNNEL_PATH_LOST', 'path_silent');
        webSocket.terminate();
      },
    });
  }

  get id(): string {
    return this.grant.tunnel;
  }

  /** Control time at which the tunnel may move no more bytes, unless it is verified again before. */
  get untilMs(): number {
    return this.#lease.untilMs;
  }

  get isOpen(): boolean {
    return !this.#hasEnded;
  }

  /** Opens a stream. Throws ERR_TUNNEL_CLOSED or ERR_LIMIT_STREAMS. */
  openStream(): TunnelStream {
    return this.#pump.endpoint.open();
  }

  /** Takes a renewal of the lease; one that does not count changes nothing. */
  renew(sequence: Sequence, untilMs: number): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs === undefined || this.#hasEnded) return;
    if (this.#lease.renew(sequence, untilMs, nowMs)) this.onVerified();
  }

  /** Ends the tunnel when its lease is over. To be called a few times a second. */
  tick(): void {
    if (!this.#hasEnded && !this.#isLeaseLive()) {
      this.end('ERR_TUNNEL_LEASE_EXPIRED', 'lease_expired');
    }
  }

  /** Ends the tunnel at both ends. When it has ended already, this may still say why. */
  end(code: ErrorCode, reason: string): void {
    if (this.#hasEnded) this.#settle(new ZtnaError(code, { reason }));
    else this.#pump.close(code, reason);
  }

  /** Resolves when nothing of the tunnel is left running. */
  async gone(): Promise<void> {
    await this.#pump.closed;
    clearTimeout(this.#reasonTimer);
  }

  #isLeaseLive(): boolean {
    const nowMs = this.#clock.nowMs();
    return nowMs !== undefined && this.#lease.isLive(nowMs);
  }

  #onEnd(error: ZtnaError): void {
    this.#hasEnded = true;
    // Relay and control plane speak on two sockets; the one that cuts first has no room for a reason.
    const isUnexplained = error.reason === undefined && errorRow(error.code).family === 'denied';
    if (isUnexplained) this.#reasonTimer = setTimeout(() => this.#settle(error), reasonWithinMs);
    else this.#settle(error);
  }
}

/** The same error with the decision that had allowed the tunnel, for support to look up. */
function withRef(error: ZtnaError, ref: string): ZtnaError {
  const { code, message, hint, hop, reason } = error;
  return new ZtnaError(code, {
    message,
    ref: error.ref ?? ref,
    ...(hint === undefined ? {} : { hint }),
    ...(hop === undefined ? {} : { hop }),
    ...(reason === undefined ? {} : { reason }),
    cause: error,
  });
}

/** The next binary message. Throws what closed the WebSocket before, or ERR_HANDSHAKE_TIMEOUT. */
async function firstMessage(webSocket: WebSocket): Promise<Buffer> {
  return new Promise<Buffer>((resolve, reject) => {
    const finish = (act: () => void): void => {
      clearTimeout(timer);
      webSocket.off('message', onMessage);
      webSocket.off('close', onClose);
      act();
    };
    const onMessage = (data: unknown, isBinary: boolean): void =>
      finish(() => {
        if (isBinary) resolve(data as Buffer);
        else reject(new ZtnaError('ERR_MESSAGE_UNEXPECTED', { hop: 'relay' }));
      });
    const onClose = (closeCode: number, text: Buffer): void =>
      finish(() => reject(fromCloseFrame(closeCode, text.toString('utf8'))));
    const timer = setTimeout(
      () => finish(() => reject(new ZtnaError('ERR_HANDSHAKE_TIMEOUT', { hop: 'connector' }))),
      openWithinMs,
    );
    webSocket.on('message', onMessage);
    webSocket.on('close', onClose);
  });
}
