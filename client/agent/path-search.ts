import { setTimeout as delay } from 'node:timers/promises';
import { errorRow, toZtnaError, type RelayId, type ZtnaError } from '../../protocol/index.ts';
import { fullJitterDelayMs, machineNetwork, redialCapMs } from '../../protocol/host/index.ts';
import type { PathRelay, PermitAnswer } from './permit.ts';
import type { Path } from './path.ts';

/** The first ceiling of the delays: one retry at a relay that is just starting costs little. */
const baseDelayMs = 100;

/** The same at most while only the connector is waited for, which is back soon or not at all. */
const awayCapMs = 1_000;

/** How long the control plane may say that the connector is away. It ends such a tunnel itself, and sooner. */
const awayForMs = 90_000;

/** How often a tunnel that policy holds back is asked for anyway: the word that it may go on can be lost. */
const heldBackEveryMs = 10_000;

/** Where a tunnel's paths come from. */
export interface PathSource {
  /** Asks for permission for another path. Throws the control plane's refusal, or why it could not be asked. */
  requestPath(avoid: readonly RelayId[]): Promise<PermitAnswer>;
  /** Hears why the present one, by this relay, was lost. */
  noteLost(relay: PathRelay, error: ZtnaError): void;
  /** Verifies the permission and opens a path under it. Throws why none could be opened. */
  openPath(answer: PermitAnswer): Promise<Path>;
}

export interface PathSearchOptions {
  readonly source: PathSource;
  /** Takes the tunnel up on the path; throws when that fails. */
  readonly takeUp: (path: Path) => Promise<void>;
  /** True while the tunnel has no path. */
  readonly isNeeded: () => boolean;
  /** True while policy holds the tunnel back: there is no use in asking before something has changed. */
  readonly isHeldBack: () => boolean;
  /** The control plane says that policy holds it back. */
  readonly onHeldBack: (error: ZtnaError) => void;
  /** An attempt failed; while a path is needed others follow. */
  readonly onFailed: (error: ZtnaError) => void;
  /** The control plane says that the tunnel cannot be taken up again, or that its user may not any more. */
  readonly onRefused: (error: ZtnaError) => void;
  /** It says that the tunnel's connector is not to be reached at present. */
  readonly onAway: () => void;
  readonly signal: AbortSignal;
}

/**
 * Looks for another path of one tunnel: for as long as it needs one, or once to move it. Only the control plane's answer
 * is final; what a relay says is a reason to try again.
 */
export class PathSearch {
  readonly #options: PathSearchOptions;
  #isRunning = false;
  #awaySinceMs: number | undefined;
  #wake: () => void = () => undefined;

  constructor(options: PathSearchOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Starts, unless it runs. Relays in `avoid` are asked to be left out the first time. Never throws. */
  start(avoid: readonly RelayId[]): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run(avoid).finally(() => {
      this.#isRunning = false;
      // It was lost again in the very turn in which it was taken up.
      if (this.#isWanted()) this.start([]);
    });
  }

  /** Ends the present wait. */
  hurry(): void {
    this.#wake();
  }

  async #run(avoid: readonly RelayId[]): Promise<void> {
    const startedAtMs = performance.now();
    for (let attempt = 0; ; attempt++) {
      if (this.#options.isNeeded()) await this.#wait(attempt, performance.now() - startedAtMs);
      if (this.#isStopped()) return;
      if (await this.#attempt(attempt === 0 ? avoid : [])) return;
      if (!this.#isWanted()) return;
    }
  }

  #isWanted(): boolean {
    return this.#options.isNeeded() && !this.#isStopped();
  }

  #isStopped(): boolean {
    return this.#options.signal.aborted;
  }

  async #wait(attempt: number, lostForMs: number): Promise<void> {
    const capMs = this.#awaySinceMs === undefined ? redialCapMs(lostForMs) : awayCapMs;
    const delayMs = this.#options.isHeldBack()
      ? heldBackEveryMs / 2 +
        fullJitterDelayMs(0, { baseMs: heldBackEveryMs, capMs: heldBackEveryMs })
      : fullJitterDelayMs(attempt, { baseMs: baseDelayMs, capMs });
    const waking = new AbortController();
    this.#wake = () => {
      waking.abort();
    };
    // With the machine awake or at another place, what failed before may work.
    const unsubscribe = machineNetwork.subscribe(this.#wake);
    const signal = AbortSignal.any([this.#options.signal, waking.signal]);
    await delay(delayMs, undefined, { signal }).catch(() => undefined);
    unsubscribe();
  }

  /** True when the tunnel has been taken up, or is not to be any more. */
  async #attempt(avoid: readonly RelayId[]): Promise<boolean> {
    const { source, takeUp, onFailed } = this.#options;
    let answer: PermitAnswer;
    try {
      answer = await source.requestPath(avoid);
    } catch (error) {
      return this.#refused(toZtnaError(error));
    }
    this.#awaySinceMs = undefined;
    if (this.#isStopped()) return true;
    try {
      await takeUp(await source.openPath(answer));
      return true;
    } catch (error) {
      if (!this.#isStopped()) onFailed(toZtnaError(error));
      return false;
    }
  }

  #refused(error: ZtnaError): boolean {
    const { isNeeded, onFailed, onRefused, onAway } = this.#options;
    if (this.#isStopped()) return true;
    if (error.code === 'ERR_TUNNEL_SUSPENDED') {
      this.#options.onHeldBack(error);
      return false;
    }
    const nowMs = performance.now();
    this.#awaySinceMs =
      error.code === 'ERR_CONNECTOR_OFFLINE' ? (this.#awaySinceMs ?? nowMs) : undefined;
    const isAwayForGood = this.#awaySinceMs !== undefined && nowMs - this.#awaySinceMs >= awayForMs;
    const isFinal =
      isAwayForGood ||
      error.code === 'ERR_TUNNEL_RESUME_REFUSED' ||
      errorRow(error.code).retry !== 'backoff';
    onFailed(error);
    // A path that still works needs no permission for another.
    if (!isNeeded()) return false;
    if (isFinal) onRefused(error);
    else if (this.#awaySinceMs !== undefined) onAway();
    return isFinal;
  }
}
