import { reasonWithinMs } from './end-report.ts';
import type { Suspension, TunnelWatcher } from './tunnel-watcher.ts';

export interface LossReportOptions {
  readonly watcher: () => Partial<Pick<TunnelWatcher, 'onDetached' | 'onSuspended'>>;
  /** True while the tunnel has no path: what is over by the time it would be told is not told. */
  readonly isDetached: () => boolean;
  /** Until when the tunnel is kept, in control time. */
  readonly holdEndMs: () => number;
}

/**
 * Tells that a tunnel has lost its path: once for each loss, and after a moment where it may be mended, or explained
 * better, by then. A suspension is told in place of a loss, and again when what is known of it has changed.
 */
export class LossReport {
  readonly #options: LossReportOptions;
  #reason = '';
  #isTold = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LossReportOptions) {
    this.#options = options;
  }

  /** The path was lost. With `isEarly` that is told in a moment, or by `tell`. */
  lost(reason: string, isEarly: boolean): void {
    this.#reason = reason;
    if (isEarly) this.#timer = setTimeout(this.tell, reasonWithinMs);
    else this.tell();
  }

  /** Tells the loss now, unless it was told. */
  readonly tell = (): void => {
    const { watcher, isDetached, holdEndMs } = this.#options;
    if (!isDetached() || this.#isTold) return;
    this.#noteTold();
    watcher().onDetached?.(this.#reason, holdEndMs());
  };

  /** Policy holds the tunnel back; `isNews` where something was not known of that before. */
  suspended(suspension: Suspension, isNews: boolean): void {
    const { watcher, isDetached, holdEndMs } = this.#options;
    if (!isDetached() || (this.#isTold && !isNews)) return;
    this.#noteTold();
    watcher().onSuspended?.(suspension, holdEndMs());
  }

  /** There is a path again. True if its loss had been told; an untold one is not told any more. */
  mended(): boolean {
    const wasTold = this.#isTold;
    this.stop();
    this.#isTold = false;
    return wasTold;
  }

  /** Tells nothing later. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  #noteTold(): void {
    this.stop();
    this.#isTold = true;
  }
}
