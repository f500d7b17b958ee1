import {
  maxPostureChecks,
  type DevicePosture,
  type ExtraCheck,
  type PostureCheck,
} from '../../protocol/index.ts';
import { unlessAborted } from '../front-end/unless-aborted.ts';
import type { Collection, Collector, PlatformCollectors } from './collector.ts';
import { findExtra } from './extra-check.ts';
import { FileChecks } from './file-check.ts';
import { on, plainText, unknown, type Finding } from './finding.ts';
import { linuxCollectors } from './linux/collectors.ts';
import { macCollectors } from './macos/collectors.ts';
import { LocalMachine, type Machine } from './machine.ts';
import type { Platform } from './platform.ts';
import { windowsCollectors } from './windows/collectors.ts';

/** How long a collection takes at the most, whatever hangs. */
const collectWithinMs = 8_000;

/** How long a check of a collection that was cut short has to let go of its tools. */
const settleWithinMs = 250;

const maxVersionLength = 64;

export interface PostureCollectorOptions {
  readonly clientVersion: string;
  /** By default this machine. */
  readonly machine?: Machine;
  readonly withinMs?: number;
}

export interface CollectOptions {
  /** Of the deployment; those beyond what a statement can hold are left out, and so are those named like a check there is. */
  readonly extraChecks?: readonly ExtraCheck[];
  /** Looks at everything again that can change while the machine runs. */
  readonly isFresh?: boolean;
  /** Ends the collection; what was not found out by then is unknown. */
  readonly signal?: AbortSignal;
}

/** A finding that is believed for a while. */
interface Kept {
  readonly finding: Finding;
  readonly untilMs: number;
}

/**
 * Finds out the posture of a machine, again and again. A check that hangs, lies in format or fails is `unknown`; it is not
 * begun anew while it still hangs, and keeps nothing else waiting.
 */
export class PostureCollector {
  readonly #machine: Machine;
  readonly #clientVersion: string;
  readonly #withinMs: number;
  readonly #files = new FileChecks();
  readonly #kept = new Map<string, Kept>();
  readonly #running = new Map<string, Promise<unknown>>();

  constructor(options: PostureCollectorOptions) {
    this.#machine = options.machine ?? new LocalMachine();
    this.#clientVersion = plainText(options.clientVersion, 32);
    this.#withinMs = options.withinMs ?? collectWithinMs;
  }

  /** Takes 8 s at the most. Never rejects. */
  async collect(options: CollectOptions = {}): Promise<DevicePosture> {
    const tooLate = new AbortController();
    const end = (): void => tooLate.abort();
    const timer = setTimeout(end, this.#withinMs);
    options.signal?.addEventListener('abort', end, { once: true });
    if (options.signal?.aborted === true) end();
    try {
      const { osVersion, checks } = collectorsOf(this.#machine.platform);
      const collection = this.#begin(tooLate.signal);
      const isFresh = options.isFresh === true;
      const collectors = [...checks, ...this.#extraCollectors(checks, options.extraChecks ?? [])];
      const [version, ...found] = await Promise.all([
        this.#findVersion(osVersion, collection, isFresh),
        ...collectors.map((collector) => this.#find(collector, collection, isFresh)),
      ]);
      return {
        platform: this.#machine.platform,
        osVersion: plainText(version, maxVersionLength),
        clientVersion: this.#clientVersion,
        checks: found,
      };
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', end);
      tooLate.abort(); // what hangs is not waited for, but for its tool to be killed
    }
  }

  #begin(signal: AbortSignal): Collection {
    const machine = this.#machine;
    const shared = new Map<string, Promise<unknown>>();
    const once = <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const begun = shared.get(name) as Promise<T> | undefined;
      if (begun) return begun;
      const begins = work();
      shared.set(name, begins);
      return begins;
    };
    return {
      machine,
      signal,
      nowMs: Date.now(),
      once,
      processes: () => once('processes', () => machine.processes(signal)),
    };
  }

  #extraCollectors(checks: readonly Collector[], extra: readonly ExtraCheck[]): Collector[] {
    const taken = new Set(checks.map(({ check }) => check));
    return extra
      .filter(({ id }) => !taken.has(id) && taken.add(id))
      .slice(0, maxPostureChecks - checks.length)
      .map((check) => ({
        check: check.id,
        find: (collection) => findExtra(check, collection, this.#files),
      }));
  }

  /** The version as text in place of how it was found. */
  async #findVersion(
    osVersion: PlatformCollectors['osVersion'],
    collection: Collection,
    isFresh: boolean,
  ): Promise<string> {
    const find = async (): Promise<Finding> => {
      const version = await osVersion(collection);
      return version === '' ? unknown('') : on(version);
    };
    const collector = { check: '', find, keptForMs: { on: 60_000, off: 0 } };
    const [, result, version] = await this.#find(collector, collection, isFresh);
    return result === 'on' ? version : '';
  }

  async #find(
    { check, find, keptForMs }: Collector,
    collection: Collection,
    isFresh: boolean,
  ): Promise<PostureCheck> {
    const kept = this.#kept.get(check);
    if (kept && isBelieved(kept, isFresh)) return [check, kept.finding.result, kept.finding.how];
    const found = await this.#guard(check, () => find(collection), collection.signal);
    const finding = found ?? unknown('it was not found out');
    // What is unknown may be known the next time.
    const forMs = finding.result === 'unknown' ? 0 : (keptForMs?.[finding.result] ?? 0);
    if (forMs > 0) this.#kept.set(check, { finding, untilMs: performance.now() + forMs });
    else this.#kept.delete(check);
    return [check, finding.result, finding.how];
  }

  /** What `work` comes to; undefined when it fails, is too late, or still hangs since an earlier collection. */
  async #guard<T>(
    name: string,
    work: () => Promise<T>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    const before = this.#running.get(name);
    if (before) {
      const tooLong = AbortSignal.timeout(settleWithinMs);
      await unlessAborted(before, AbortSignal.any([signal, tooLong]));
    }
    if (this.#running.has(name) || signal.aborted) return undefined;
    const done = (async () => work())()
      .catch(() => undefined)
      .finally(() => this.#running.delete(name));
    this.#running.set(name, done);
    return unlessAborted(done, signal);
  }
}

/** Fresh is what cannot have changed, and what is looked at now. */
function isBelieved({ untilMs }: Kept, isFresh: boolean): boolean {
  return isFresh ? untilMs === Infinity : performance.now() < untilMs;
}

function collectorsOf(platform: Platform): PlatformCollectors {
  switch (platform) {
    case 'linux':
      return linuxCollectors;
    case 'darwin':
      return macCollectors;
    case 'win32':
      return windowsCollectors;
    case 'other':
      return nothingKnown;
  }
}

/** A platform of which nothing is known: every check is there, and unknown. */
const nothingKnown: PlatformCollectors = {
  osVersion: () => Promise.resolve(''),
  checks: linuxCollectors.checks.map(({ check }) => ({
    check,
    find: () => Promise.resolve(unknown('this platform is not known')),
  })),
};
