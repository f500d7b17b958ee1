import {
  ZtnaError,
  type ErrorCode,
  type RecordOpener,
  type RecordSealer,
  type ResumedPath,
  type TunnelEndpoint,
  type TunnelHandlers,
} from '../index.ts';
import { watchPath } from './path-watch.ts';
import { RecordPump } from './record-pump.ts';
import type { WebSocket } from 'ws';

const maxTimerMs = 2 ** 31 - 1;

/** A WebSocket past its handshake, and the keys that it brought. */
export interface PathParts {
  readonly webSocket: WebSocket;
  readonly sealer: Pick<RecordSealer, 'seal'>;
  readonly opener: Pick<RecordOpener, 'open'>;
  /** Records that came already. */
  readonly early?: readonly Buffer[];
}

export interface PathKeeperOptions {
  /** Makes the tunnel's end; `handlers` are the keeper's, the caller adds `onAccept` or `onStream`. */
  readonly createEndpoint: (handlers: TunnelHandlers) => TunnelEndpoint;
  readonly path: PathParts;
  /** Asked before each record: may bytes move on the present path? */
  readonly mayPass: () => boolean;
  /** How long the tunnel is kept without a path. */
  readonly holdMs: number;
  /** True while the other end owes us something, beside what it has not acknowledged. */
  readonly isWaiting?: () => boolean;
  /** Keeps address translators awake. */
  readonly keepsAlive?: boolean;
  /** There is no path any more; the streams stay. */
  readonly onDetached: (error: ZtnaError) => void;
  /** The tunnel is over and its streams were reset: why, once. */
  readonly onEnd: (error: ZtnaError) => void;
  /** The relay of the present path is about to stop. */
  readonly onDrain?: () => void;
}

/**
 * One end of a tunnel and the path that it has at present. A tunnel that cannot be taken up again ends with its path.
 *
 *   attached ──path lost──▶ detached ──replace()──▶ attached
 *            ──replace()──▶ attached               the path before is retired in the same turn
 *   attached ──CLOSE, close()──▶ ended     detached ──close(), hold over──▶ ended
 */
export class PathKeeper {
  readonly endpoint: TunnelEndpoint;
  readonly #options: PathKeeperOptions;
  #pump: RecordPump | undefined;
  #stopWatching: () => void = () => undefined;
  #holdTimer: NodeJS.Timeout | undefined;
  #holdEndsAtMs = 0;
  #hasEnded = false;
  readonly #closing = new Set<Promise<void>>();

  constructor(options: PathKeeperOptions) {
    this.#options = options;
    this.endpoint = options.createEndpoint({
      onOutput: () => this.#pump?.schedule(),
      onClose: (code, reason) => this.#pump?.ended(new ZtnaError(code, { reason })),
    });
  }

  /**
   * Begins with the first path, once its owner can be told things: it may be lost, or the tunnel end, within the call.
   * Throws ERR_TUNNEL_PATH_LOST when the WebSocket is closed already.
   */
  start(): void {
    const { path } = this.#options;
    requireOpen(path);
    this.#run(path);
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get isDetached(): boolean {
    return !this.#hasEnded && this.#pump === undefined;
  }

  /** Sealed bytes that the present path has carried. */
  get pathBytes(): number {
    return this.#pump?.bytes ?? 0;
  }

  /** How long a detached tunnel will still be kept; 0 for one that has a path. */
  get holdLeftMs(): number {
    return this.isDetached ? Math.max(0, this.#holdEndsAtMs - performance.now()) : 0;
  }

  /** Goes on with another path. Throws ERR_TUNNEL_CLOSED, ERR_TUNNEL_PATH_LOST, or as `TunnelEndpoint.resume`. */
  replace(path: PathParts, resumed: ResumedPath): void {
    requireOpen(path);
    this.endpoint.resume(resumed);
    clearTimeout(this.#holdTimer);
    this.#stopWatching();
    this.#pump?.retire();
    this.#run(path);
  }

  /** Gives the present path up, as if it had been lost. */
  lose(error: ZtnaError): void {
    this.#pump?.lose(error);
  }

  /** Gives the present path up with all that waits in its buffers. */
  cut(error: ZtnaError): void {
    this.#pump?.cut(error);
  }

  /** Ends the tunnel; the other end is told where there is a path. Does nothing to one that has ended. */
  close(code: ErrorCode, reason: string): void {
    if (this.#pump) {
      this.#pump.close(code, reason);
    } else if (!this.#hasEnded) {
      this.endpoint.abort();
      this.#end(new ZtnaError(code, { reason }));
    }
  }

  /** Resolves when no socket and no timer is left. */
  async gone(): Promise<void> {
    await Promise.all(this.#closing);
  }

  #run(path: PathParts): void {
    const { mayPass, isWaiting = () => false, keepsAlive = false } = this.#options;
    const { endpoint } = this;
    const pump = new RecordPump({
      ...path,
      endpoint,
      mayPass,
      onLost: (error) => {
        this.#detached(error);
      },
      onEnd: (error) => {
        this.#end(error);
      },
      onDrain: () => this.#options.onDrain?.(),
    });
    this.#pump = pump;
    const closed = pump.closed.finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
    this.#stopWatching = watchPath(path.webSocket, {
      isBusy: () => isWaiting() || endpoint.unacknowledgedBytes > 0,
      waitingBytes: () => pump.waitingBytes,
      keepsAlive,
      onDead: () => {
        pump.cut(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_silent' }));
      },
    });
    pump.start();
  }

  #detached(error: ZtnaError): void {
    this.#stopWatching();
    this.#pump = undefined;
    const holdMs = Math.min(this.#options.holdMs, maxTimerMs);
    this.#holdEndsAtMs = performance.now() + holdMs;
    this.#holdTimer = setTimeout(() => {
      this.close('ERR_TUNNEL_PATH_LOST', 'hold_over');
    }, holdMs);
    this.#options.onDetached(error);
  }

  #end(error: ZtnaError): void {
    this.#hasEnded = true;
    this.#pump = undefined;
    this.#stopWatching();
    clearTimeout(this.#holdTimer);
    this.#options.onEnd(error);
  }
}

function requireOpen({ webSocket }: PathParts): void {
  if (webSocket.readyState !== webSocket.OPEN) throw new ZtnaError('ERR_TUNNEL_PATH_LOST');
}
