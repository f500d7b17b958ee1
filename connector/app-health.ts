import { randomInt } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { checkApp, type CheckOptions } from './app-check.ts';
import { isSameTarget, type Target } from './target.ts';
import type { AppMap } from './app-map.ts';
import type { Logger } from '../protocol/host/index.ts';

/** So many checks in a row must fail before an app counts as down; one that succeeds brings it back. */
const failuresUntilDown = 2;

/** After a failure the next check comes sooner, so that one that was down for a moment is told from one that is. */
const againAfterMs = 1_000;

export interface AppHealthOptions {
  /** What is known changed. */
  readonly onChange: () => void;
  readonly logger: Logger;
  readonly check?: typeof checkApp;
}

interface Watched {
  readonly target: Target;
  readonly check: CheckOptions;
  readonly stopping: AbortController;
  timer: NodeJS.Timeout | undefined;
  failures: number;
  isUp: boolean | undefined;
}

/** Checks every app of the map in turn, one check of each at a time, at intervals that differ by up to a quarter. */
export class AppHealth {
  readonly #options: AppHealthOptions;
  readonly #watched = new Map<string, Watched>();

  constructor(options: AppHealthOptions) {
    this.#options = options;
  }

  /** Checks the apps of this map from now on. What is known of those that stay as they were is kept. */
  watch(apps: AppMap): void {
    for (const [name, watched] of [...this.#watched]) {
      const app = apps.get(name);
      const stays =
        app?.check &&
        isSameTarget(app.target, watched.target) &&
        isDeepStrictEqual(app.check, watched.check);
      if (!stays) this.#forget(name, watched);
    }
    for (const [name, { target, check }] of apps) {
      if (!check || this.#watched.has(name)) continue;
      const watched: Watched = {
        target,
        check,
        stopping: new AbortController(),
        timer: undefined,
        failures: 0,
        isUp: undefined,
      };
      this.#watched.set(name, watched);
      // Many apps at once are not dialled in one moment, but the first answers come soon.
      const spreadMs = Math.min(againAfterMs, apps.size * 4);
      this.#schedule(name, watched, randomInt(0, spreadMs));
    }
  }

  /** What was found of each app so far; apps that are not checked, or not yet, are missing. */
  results(): [name: string, isUp: boolean][] {
    return [...this.#watched].flatMap(([name, { isUp }]) =>
      isUp === undefined ? [] : [[name, isUp]],
    );
  }

  isUp(name: string): boolean | undefined {
    return this.#watched.get(name)?.isUp;
  }

  stop(): void {
    for (const [name, watched] of [...this.#watched]) this.#forget(name, watched);
  }

  #forget(name: string, watched: Watched): void {
    clearTimeout(watched.timer);
    watched.stopping.abort();
    this.#watched.delete(name);
  }

  #schedule(name: string, watched: Watched, delayMs: number): void {
    watched.timer = setTimeout(() => void this.#checkOnce(name, watched), delayMs);
  }

  async #checkOnce(name: string, watched: Watched): Promise<void> {
    const { check = checkApp } = this.#options;
    const failure = await check(watched.target, watched.check, watched.stopping.signal);
    if (watched.stopping.signal.aborted) return;
    this.#note(name, watched, failure);
    const { intervalMs } = watched.check;
    const isDoubtful = watched.failures > 0 && watched.isUp !== false;
    const nextMs = isDoubtful ? Math.min(againAfterMs, intervalMs) : intervalMs;
    this.#schedule(name, watched, jittered(nextMs));
  }

  #note(name: string, watched: Watched, failure: string | undefined): void {
    const { logger, onChange } = this.#options;
    watched.failures = failure === undefined ? 0 : watched.failures + 1;
    if (failure !== undefined && watched.failures < failuresUntilDown) return;
    const isUp = failure === undefined;
    if (watched.isUp === isUp) return;
    const isFirst = watched.isUp === undefined;
    watched.isUp = isUp;
    if (!isUp) logger.warn('app_down', { app: name, reason: failure });
    else if (!isFirst) logger.info('app_up', { app: name });
    onChange();
  }
}

/** From three quarters to five quarters of it. */
function jittered(ms: number): number {
  return Math.round(ms * 0.75) + randomInt(0, Math.max(1, Math.round(ms / 2)));
}
