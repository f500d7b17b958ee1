import type { DevicePosture, ExtraCheck } from '../../protocol/index.ts';
import { machineNetwork, type NetworkWatch } from '../../protocol/host/index.ts';
import type { CollectOptions } from './collect.ts';

/** However often a control plane wants to hear, a machine has other work. */
const minEveryMs = 1_000;

/** What came of one collection. */
export interface CollectedPosture {
  readonly facts: DevicePosture;
  /** Other facts than the last time; true the first time. */
  readonly isChanged: boolean;
  /** The oldest of the facts may be so old; what is believed for longer is not counted. */
  readonly tookMs: number;
}

export interface PostureSchedule {
  readonly everyMs: number;
  readonly extraChecks: readonly ExtraCheck[];
}

export interface PostureLoopOptions extends PostureSchedule {
  readonly collect: (options: CollectOptions) => Promise<DevicePosture>;
  /** Called with the facts of each collection, changed or not. Must not throw. */
  readonly onFacts: (collected: CollectedPosture) => void;
  /** What tells of sleep and other addresses; by default this machine. */
  readonly network?: Pick<NetworkWatch, 'subscribe'>;
}

/**
 * Collects posture at once, then every `everyMs`, and when the machine wakes or its network changes. Never two collections go on
 * at once: who asks meanwhile has another one right behind it.
 */
export class PostureLoop {
  readonly #options: PostureLoopOptions;
  #schedule: PostureSchedule;
  #last = '';
  #timer: NodeJS.Timeout | undefined;
  #unsubscribe: (() => void) | undefined;
  #running: AbortController | undefined;
  #isWantedAgain = false;

  constructor(options: PostureLoopOptions) {
    this.#options = options;
    this.#schedule = options;
  }

  /** Begins, with a collection at once. Does nothing when it has begun. */
  start(): void {
    if (this.#unsubscribe) return;
    const { network = machineNetwork } = this.#options;
    this.#unsubscribe = network.subscribe(() => {
      this.collectNow();
    });
    this.collectNow();
  }

  /** Takes another interval, other extra checks, or both, and collects at once; what goes on without them is not told. */
  reschedule(schedule: PostureSchedule): void {
    this.#schedule = schedule;
    this.#running?.abort();
    this.collectNow();
  }

  /** Looks at everything again that can have changed: at once, or right behind the collection that goes on. */
  collectNow(): void {
    if (!this.#unsubscribe) return;
    if (this.#running) this.#isWantedAgain = true;
    else void this.#collect(true);
  }

  /** Ends it; nothing is told after this. */
  stop(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    clearTimeout(this.#timer);
    this.#running?.abort();
    this.#isWantedAgain = false;
    this.#last = '';
  }

  async #collect(isFresh: boolean): Promise<void> {
    clearTimeout(this.#timer);
    const running = new AbortController();
    this.#running = running;
    const { extraChecks } = this.#schedule;
    const beganAtMs = performance.now();
    const facts = await this.#options.collect({ extraChecks, isFresh, signal: running.signal });
    this.#running = undefined;
    if (!this.#unsubscribe) return;
    // It is out of date: other checks are wanted, or the loop was stopped and begun again.
    if (running.signal.aborted) {
      this.#isWantedAgain = false;
      void this.#collect(true);
      return;
    }
    const tookMs = Math.ceil(performance.now() - beganAtMs);
    const text = JSON.stringify(facts);
    const isChanged = text !== this.#last;
    this.#last = text;
    if (this.#isWantedAgain) {
      this.#isWantedAgain = false;
      void this.#collect(true);
    } else {
      const waitMs = Math.max(minEveryMs, this.#schedule.everyMs) - tookMs;
      this.#timer = setTimeout(() => void this.#collect(false), Math.max(0, waitMs));
      this.#timer.unref();
    }
    this.#options.onFacts({ facts, isChanged, tookMs });
  }
}
