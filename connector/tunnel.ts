import {
  TunnelEndpoint,
  ZtnaError,
  type ByteBudget,
  type ErrorCode,
  type Transport,
  type TunnelStream,
  type VerifiedGrant,
} from '../protocol/index.ts';
import { bridgeStream, RecordPump, type Logger } from '../protocol/host/index.ts';
import { dialApp } from './app-dialler.ts';
import { maxStreamsPerTunnel } from './limits.ts';
import type { StreamBudget } from './stream-budget.ts';
import type { ServedApp } from './app-map.ts';
import type { Admission } from './grant-gate.ts';
import type { Metrics } from './metrics.ts';
import type { TunnelLease } from './tunnel-lease.ts';
import type { OpenTunnel } from './tunnel-table.ts';
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
  readonly streams: StreamBudget;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly dial?: typeof dialApp;
  /** Called once. */
  readonly onEnd: (tunnel: Tunnel, end: TunnelEnd) => void;
}

/**
 * One open tunnel: the client's streams on one side, connections to the one app it was granted on the other. Only
 * an `Admission` opens it, and its first record says ACCEPT. When it ends, every connection to the app is reset,
 * never finished: the app must not take the end of a lease for the end of the data.
 */
export class Tunnel implements OpenTunnel {
  readonly grant: VerifiedGrant<'connector'>;
  readonly lease: TunnelLease;
  readonly #app: ServedApp;
  readonly #options: TunnelOptions;
  #pump: RecordPump | undefined;
  readonly #ending = new AbortController();
  readonly #sockets = new Set<Socket>();
  #bytesUp = 0;
  #bytesDown = 0;

  constructor(options: TunnelOptions) {
    this.grant = options.admission.grant;
    this.lease = options.admission.lease;
    this.#app = options.admission.app;
    this.#options = options;
  }

  get appName(): string {
    return this.#app.name;
  }

  get streamCount(): number {
    return this.#pump?.endpoint.streamCount ?? 0;
  }

  /** Resolves when its WebSocket is gone. */
  get closed(): Promise<void> {
    return this.#pump?.closed ?? Promise.resolve();
  }

  /** Says ACCEPT and begins to move bytes; call once. The tunnel may end within the call. */
  start(): void {
    const { transport, webSocket, early, budget } = this.#options;
    if (webSocket.readyState !== webSocket.OPEN) {
      this.#onEnd(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_lost' }));
      return;
    }
    this.#pump = new RecordPump({
      webSocket,
      sealer: transport.sealer,
      opener: transport.opener,
      early,
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'connector',
          grant: this.grant,
          limits: { streams: maxStreamsPerTunnel },
          budget,
          handlers: {
            ...handlers,
            onStream: (stream) => {
              void this.#serve(stream);
            },
          },
        }),
      mayPass: () => this.lease.isLive(),
      onEnd: (error) => {
        this.#onEnd(error);
      },
    });
    webSocket.resume();
  }

  end(code: ErrorCode, reason: string): void {
    this.#pump?.close(code, reason);
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

  #forget(socket: Socket): void {
    if (!this.#sockets.delete(socket)) return;
    this.#bytesUp += socket.bytesWritten;
    this.#bytesDown += socket.bytesRead;
  }

  #onEnd(error: ZtnaError): void {
    this.#ending.abort();
    for (const socket of [...this.#sockets]) this.#forget(socket);
    this.#options.onEnd(this, {
      error,
      reason: error.reason ?? error.code.slice('ERR_'.length).toLowerCase(),
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
    });
  }
}
