import {
  resumeSecretOf,
  TunnelEndpoint,
  ZtnaError,
  type ByteBudget,
  type ErrorCode,
  type ResumedPath,
  type ResumeSecret,
  type Transport,
  type TunnelStream,
  type VerifiedGrant,
} from '../protocol/index.ts';
import { bridgeStream, PathKeeper, type Logger } from '../protocol/host/index.ts';
import { dialApp } from './app-dialler.ts';
import { maxStreamsPerTunnel } from './limits.ts';
import type { StreamBudget } from './stream-budget.ts';
import type { ServedApp } from './app-map.ts';
import type { Admission } from './grant-gate.ts';
import type { Metrics } from './metrics.ts';
import type { TunnelLease } from './tunnel-lease.ts';
import type { OpenTunnel, Traffic } from './tunnel-table.ts';
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** How a tunnel ended, with the bytes that went to the app and came from it. */
export interface TunnelEnd {
  readonly error: ZtnaError;
  readonly reason: string;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

export interface TunnelOptions {
  readonly admission: Admission;
  readonly transport: Transport;
  /** Paused after the handshake. */
  readonly webSocket: WebSocket;
  /** Records that came before the client was admitted. */
  readonly early: readonly Buffer[];
  readonly budget: ByteBudget;
  readonly replayBudget: ByteBudget;
  readonly streams: StreamBudget;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly dial?: typeof dialApp;
  /** It has lost its path and is kept for its hold time. */
  readonly onDetached: (tunnel: Tunnel, error: ZtnaError) => void;
  /** Called once. */
  readonly onEnd: (tunnel: Tunnel, end: TunnelEnd) => void;
}

/** A later path of a tunnel, admitted, and proved to be its client's. */
export interface NextPath {
  readonly grant: VerifiedGrant<'connector'>;
  readonly lease: TunnelLease;
  readonly transport: Transport;
  readonly webSocket: WebSocket;
  /** Records that came behind the proof. */
  readonly early: readonly Buffer[];
  readonly resumed: ResumedPath;
}

/**
 * One tunnel: the client's streams on one side, connections to the one app it was granted on the other. Only an
 * `Admission` opens it, and its first record says ACCEPT. While it is detached nothing moves, and the connections to
 * the app stay. When it ends, every one of them is reset, never finished: the app must not take the end of a lease for
 * the end of the data.
 */
export class Tunnel implements OpenTunnel {
  readonly #app: ServedApp;
  readonly #options: TunnelOptions;
  readonly #secret: ResumeSecret;
  readonly #keeper: PathKeeper;
  #grant: VerifiedGrant<'connector'>;
  #lease: TunnelLease;
  /** Connections to the app that were made while there was no path. */
  readonly #held = new Set<() => void>();
  readonly #ending = new AbortController();
  readonly #sockets = new Set<Socket>();
  #lastByteAt: number | null = null;
  #bytesUp = 0;
  #bytesDown = 0;

  constructor(options: TunnelOptions) {
    const { admission, transport, webSocket, early, budget, replayBudget } = options;
    const { grant } = admission;
    this.#grant = grant;
    this.#lease = admission.lease;
    this.#app = admission.app;
    this.#options = options;
    this.#secret = resumeSecretOf(transport);
    this.#keeper = new PathKeeper({
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'connector',
          grant,
          limits: { streams: maxStreamsPerTunnel },
          budget,
          replayBudget,
          handlers: {
            ...handlers,
            onStream: (stream) => {
              void this.#serve(stream);
            },
          },
        }),
      path: { webSocket, sealer: transport.sealer, opener: transport.opener, early },
      mayPass: () => {
        if (!this.#lease.isLive()) return false;
        this.#lastByteAt = performance.now();
        return true;
      },
      holdMs: grant.holdMs,
      onDetached: (error) => {
        options.onDetached(this, error);
      },
      onEnd: (error) => {
        this.#onEnd(error);
      },
    });
  }

  /** Of the present path, or the last. */
  get grant(): VerifiedGrant<'connector'> {
    return this.#grant;
  }

  get lease(): TunnelLease {
    return this.#lease;
  }

  get appName(): string {
    return this.#app.name;
  }

  get streamCount(): number {
    return this.#keeper.endpoint.streamCount;
  }

  get isDetached(): boolean {
    return this.#keeper.isDetached;
  }

  get isResumable(): boolean {
    return this.#keeper.endpoint.isResumable;
  }

  /** What the client of a later path must know. */
  get resumeSecret(): ResumeSecret {
    return this.#secret;
  }

  /** Says ACCEPT and begins to move bytes; call once. The tunnel may end, or lose its path, within the call. */
  start(): void {
    const { webSocket } = this.#options;
    if (webSocket.readyState !== webSocket.OPEN) {
      this.#onEnd(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_lost' }));
      return;
    }
    this.#keeper.start();
    webSocket.resume();
  }

  /**
   * Goes on with another path; the one before is retired in the same turn. Throws ERR_TUNNEL_PATH_LOST when the new one is
   * gone already, and leaves the old one alone then.
   */
  resume(next: NextPath): void {
    const { transport, webSocket, early } = next;
    const { sealer, opener } = transport;
    const before = { grant: this.#grant, lease: this.#lease };
    this.#grant = next.grant;
    this.#lease = next.lease;
    try {
      this.#keeper.replace({ webSocket, sealer, opener, early }, next.resumed);
    } catch (error) {
      this.#grant = before.grant;
      this.#lease = before.lease;
      throw error;
    }
    webSocket.resume();
    for (const go of [...this.#held]) go();
  }

  end(code: ErrorCode, reason: string): void {
    this.#keeper.close(code, reason);
  }

  expire(): void {
    this.#keeper.lose(new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' }));
  }

  get traffic(): Traffic {
    let { bytesUp, bytesDown } = { bytesUp: this.#bytesUp, bytesDown: this.#bytesDown };
    for (const socket of this.#sockets) {
      bytesUp += socket.bytesWritten;
      bytesDown += socket.bytesRead;
    }
    return { bytesUp, bytesDown, lastByteAt: this.#lastByteAt };
  }

  suspend(reason: string): void {
    this.#keeper.lose(new ZtnaError('ERR_TUNNEL_SUSPENDED', { reason }));
  }

  async #serve(stream: TunnelStream): Promise<void> {
    const { metrics, logger, streams, dial = dialApp } = this.#options;
    const giveBack = streams.take(this.grant.device);
    if (!giveBack) {
      stream.reset('limit');
      metrics.count('app_dials_total', { outcome: 'streams_full' });
      return;
    }
    try {
      const socket = await dial(this.#app.target, { signal: this.#ending.signal });
      metrics.count('app_dials_total', { outcome: 'connected' });
      this.#sockets.add(socket);
      if (this.isDetached) await this.#untilAttached(socket);
      bridgeStream(stream, socket, () => {
        this.#forget(socket);
        giveBack();
      });
      socket.resume();
    } catch (error) {
      giveBack();
      const isRefused = error instanceof ZtnaError && error.code === 'ERR_STREAM_REFUSED';
      stream.reset(isRefused ? 'refused' : 'unreachable');
      if (this.#ending.signal.aborted) return;
      const reason = (error instanceof ZtnaError ? error.reason : undefined) ?? 'internal';
      metrics.count('app_dials_total', { outcome: reason });
      logger.warn('app_dial_failed', { tunnel: this.grant.tunnel, app: this.appName, reason });
    }
  }

  /** What the client sent waits with the connection: nothing reaches an app while the tunnel is detached. */
  async #untilAttached(socket: Socket): Promise<void> {
    socket.on('error', () => undefined); // a failure shows once the stream is joined with it
    await new Promise<void>((resolve) => {
      const go = () => {
        this.#held.delete(go);
        resolve();
      };
      this.#held.add(go);
    });
  }

  #forget(socket: Socket): void {
    if (!this.#sockets.delete(socket)) return;
    this.#bytesUp += socket.bytesWritten;
    this.#bytesDown += socket.bytesRead;
  }

  #onEnd(error: ZtnaError): void {
    this.#ending.abort();
    for (const go of [...this.#held]) go(); // to streams that were reset
    for (const socket of [...this.#sockets]) this.#forget(socket);
    this.#options.onEnd(this, {
      error,
      reason: error.reason ?? error.code.slice('ERR_'.length).toLowerCase(),
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
    });
  }
}
