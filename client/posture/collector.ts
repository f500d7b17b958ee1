import type { Finding } from './finding.ts';
import type { Machine } from './machine.ts';
import type { RunningProcess } from './process-list.ts';

/** One collection: the machine, and what several checks of it share. */
export interface Collection {
  readonly machine: Machine;
  /** Aborts when the collection has taken too long. */
  readonly signal: AbortSignal;
  readonly nowMs: number;
  /** All processes, read once for all checks. */
  readonly processes: () => Promise<readonly RunningProcess[] | undefined>;
  /** Does `work` once for all checks that ask for it by this name. */
  readonly once: <T>(name: string, work: () => Promise<T>) => Promise<T>;
}

/**
 * For what costs much to find out, or cannot change while the machine runs (Infinity). What is not healthy is best looked at each
 * time, so that mending it is seen at once.
 */
export interface KeptForMs {
  readonly on: number;
  readonly off: number;
}

/** For what another start of the machine alone can change. */
export const always: KeptForMs = { on: Infinity, off: Infinity };

/** How one fact is found out. */
export interface Collector {
  /** The name by which policies read it. */
  readonly check: string;
  readonly find: (collection: Collection) => Promise<Finding>;
  /** How long a finding is believed without looking again; without it, not at all. */
  readonly keptForMs?: KeptForMs;
}

/** All that is found out on one platform. */
export interface PlatformCollectors {
  /** Empty when it is not known. */
  readonly osVersion: (collection: Collection) => Promise<string>;
  readonly checks: readonly Collector[];
}
