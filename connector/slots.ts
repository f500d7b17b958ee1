import {
  decodeMessage,
  toSlot,
  toZtnaError,
  ZtnaError,
  type RelayId,
  type Assign,
} from '../protocol/index.ts';
import {
  Backoff,
  fullJitterDelayMs,
  machineNetwork,
  startLiveness,
  watchConnection,
  type Logger,
  type NetworkWatch,
} from '../protocol/host/index.ts';
import { closeWebSocket } from './close-web-socket.ts';
import { maxSlots, measureEveryMs, slotLifetimeMs, wedgedAfterMs } from './limits.ts';
import { RoundTripMeter } from './round-trip-meter.ts';
import type { RawData, WebSocket } from 'ws';

export interface SlotsOptions {
  readonly relay: RelayId;
  /** How many to keep idle. */
  readonly count: number;
  /** Dials one data WebSocket; rejects when the signal aborts. */
  readonly dial: (signal: AbortSignal) => Promise<WebSocket>;
  /** Takes over a socket that was assigned a tunnel, with its next message still unread. */
  readonly onAssign: (socket: WebSocket, assign: Assign) => void;
  /** The number of idle ones changed. */
  readonly onChange: () => void;
  readonly logger: Logger;
  readonly lifetimeMs?: number;
  /** What tells of sleep and other addresses; by default this machine's. */
  readonly network?: NetworkWatch;
  /** For tests: the usual ones of a channel, and the usual time after which a relay is wedged. */
  readonly liveness?: Parameters<typeof startLiveness>[2];
  readonly wedgedAfterMs?: number;
}

/**
 * How the idle sockets at one relay stand. `filling`: not yet all at once; `wedged`: for too long not all of them,
 * though none was used.
 */
export type SlotsState = 'filling' | 'filled' | 'wedged';

/**
 * Data WebSockets dialled ahead on one relay. One that is used, lost or old is replaced; failures are retried with
 * full jitter. When all of them are used up, twice as many are dialled as before, until it has been quiet for a while:
 * a crowd that comes at once must not wait for each of them in turn. `stop` closes the idle ones and leaves those that were handed over alone.
 */
export class Slots {
  readonly #options: SlotsOptions;
  readonly #idle = new Map<WebSocket, () => void>();
  readonly #stopping = new AbortController();
  readonly #meter = new RoundTripMeter();
  readonly #measuring: NodeJS.Timeout;
  #dialling = 0;
  readonly #backoff = new Backoff();
  readonly #unsubscribe: () => void;
  #retry: NodeJS.Timeout | undefined;
  #count: number;
  /** How many are dialled ahead now: `#count`, or more while a crowd comes. */
  #ahead: number;
  /** None may be dialled beyond this. */
  #most = maxSlots;
  #wasUsed = false;
  #hasBeenFull = false;
  /** Since when not all of them stand; one that is used begins it anew. */
  #shortSinceMs: number | undefined = performance.now();

  constructor(options: SlotsOptions) {
    this.#options = options;
    this.#unsubscribe = (options.network ?? machineNetwork).subscribe(() => {
      this.#retryAtOnce();
    });
    this.#count = options.count;
    this.#ahead = options.count;
    this.#measuring = setInterval(() => {
      if (!this.#wasUsed) this.#settle();
      this.#wasUsed = false;
      const [socket] = this.#idle.keys();
      if (socket) this.#meter.measure(socket);
    }, measureEveryMs);
    this.#fill();
  }

  get idleCount(): number {
    return this.#idle.size;
  }

  /** Round trip to the relay in milliseconds; undefined until it was measured. */
  get roundTripMs(): number | undefined {
    return this.#meter.ms;
  }

  /** How many are kept idle. */
  get count(): number {
    return this.#count;
  }

  /** True once every wanted one was idle at the same time. */
  get isFull(): boolean {
    return this.#idle.size >= this.#count;
  }

  get state(): SlotsState {
    const { wedgedAfterMs: afterMs = wedgedAfterMs } = this.#options;
    const sinceMs = this.#shortSinceMs;
    if (sinceMs !== undefined && performance.now() - sinceMs >= afterMs) return 'wedged';
    return this.#hasBeenFull ? 'filled' : 'filling';
  }

  /** Keeps fewer from now on, and closes the idle ones that are too many. */
  shrinkTo(count: number): void {
    this.#most = Math.min(this.#most, count);
    this.#count = Math.min(this.#count, count);
    this.#settle();
  }

  /** Goes back to as many as are kept for long, and closes what is idle beyond. */
  #settle(): void {
    this.#ahead = this.#count;
    const surplus = [...this.#idle].slice(this.#count);
    for (const [socket, release] of surplus) {
      release();
      closeWebSocket(socket, 1000, '');
    }
    this.#noteChange();
  }

  /** Closes the idle ones and dials no more. Safe to call twice. */
  stop(): void {
    this.#stopping.abort();
    this.#unsubscribe();
    clearTimeout(this.#retry);
    clearInterval(this.#measuring);
    for (const [socket, release] of [...this.#idle]) {
      release();
      closeWebSocket(socket, 1000, '');
    }
  }

  #fill(): void {
    if (this.#stopping.signal.aborted || this.#retry) return;
    while (this.#idle.size + this.#dialling < this.#ahead) {
      this.#dialling++;
      void this.#dialOne();
    }
  }

  async #dialOne(): Promise<void> {
    const { dial, logger, relay } = this.#options;
    const { signal } = this.#stopping;
    try {
      const socket = await dial(signal);
      this.#dialling--;
      if (signal.aborted || this.#idle.size >= this.#ahead) closeWebSocket(socket, 1000, '');
      else this.#keep(socket);
    } catch (error) {
      this.#dialling--;
      if (signal.aborted) return;
      const { code, message } = toZtnaError(error);
      logger.warn('slot_dial_failed', { relay, code, message });
      this.#failed(toZtnaError(error));
    }
  }

  #keep(socket: WebSocket): void {
    const {
      lifetimeMs = slotLifetimeMs,
      liveness,
      logger,
      network,
      relay,
      onAssign,
    } = this.#options;
    const drop = () => {
      release();
      closeWebSocket(socket, 1000, '');
      this.#fill();
    };
    // Up to a tenth less, so that a fleet that started together does not redial together.
    const lifetime = setTimeout(
      drop,
      lifetimeMs - fullJitterDelayMs(0, { baseMs: lifetimeMs / 10, capMs: lifetimeMs / 10 }),
    );
    const stopLiveness = startLiveness(
      socket,
      () => {
        logger.warn('slot_silent', { relay });
        release();
        socket.terminate();
        this.#fill();
      },
      liveness,
    );
    const stopWatching = watchConnection(
      socket,
      () => {
        release();
        socket.terminate();
        this.#fill();
      },
      network && { network },
    );
    const onClose = (code: number) => {
      release();
      logger.debug('slot_closed', { relay, code });
      // A relay that goes closes all of them for everyone, and one that refuses them would be dialled in a circle.
      this.#failed();
    };
    const onMessage = (data: RawData, isBinary: boolean) => {
      try {
        const assign = readAssign(data, isBinary);
        release();
        this.#backoff.restart();
        this.#shortSinceMs = undefined;
        this.#wasUsed = true;
        if (this.#idle.size === 0) this.#ahead = Math.min(this.#ahead * 2, this.#most);
        this.#noteChange();
        this.#fill();
        onAssign(socket, assign);
      } catch (error) {
        const { code } = toZtnaError(error);
        logger.warn('slot_message_refused', { relay, code });
        release();
        closeWebSocket(socket, error);
        this.#failed();
      }
    };
    const release = () => {
      clearTimeout(lifetime);
      stopLiveness();
      stopWatching();
      socket.off('close', onClose).off('message', onMessage);
      if (this.#idle.delete(socket)) this.#noteChange();
    };
    socket.on('error', () => undefined);
    socket.on('close', onClose).on('message', onMessage);
    this.#idle.set(socket, release);
    this.#meter.measure(socket);
    if (this.isFull) this.#backoff.restart();
    this.#noteChange();
    if (socket.readyState !== socket.OPEN) onClose(1006);
  }

  #noteChange(): void {
    if (this.isFull) {
      this.#hasBeenFull = true;
      this.#shortSinceMs = undefined;
    } else this.#shortSinceMs ??= performance.now();
    this.#options.onChange();
  }

  #failed(error?: ZtnaError): void {
    if (this.#stopping.signal.aborted || this.#retry) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#fill();
    }, this.#backoff.nextMs(error));
  }

  #retryAtOnce(): void {
    this.#backoff.restart();
    if (!this.#retry) return;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#fill();
  }
}

function readAssign(data: RawData, isBinary: boolean): Assign {
  if (isBinary || !Buffer.isBuffer(data)) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
  const message = decodeMessage(toSlot, data, maxAssignBytes);
  if (message.type !== 'assign') throw new ZtnaError('ERR_RELAY_DRAINING');
  return message;
}

/** A grant and its tunnel's id. */
const maxAssignBytes = 8_192;
