import { readFileSync, readlinkSync } from 'node:fs';
import { cpuSeconds } from '../bench/processes.ts';

const sampleEveryMs = 100;
const secondMs = 1_000;

/** Connections taken so far in the network namespace of a process; undefined where it has none of its own. */
function acceptedIn(pid: number): number | undefined {
  try {
    // What has just been started is not there yet.
    if (readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync('/proc/self/ns/net')) return undefined;
    const lines = readFileSync(`/proc/${pid}/net/snmp`, 'utf8').split('\n');
    const [names, values] = lines.filter((line) => line.startsWith('Tcp:'));
    const at = names?.split(' ').indexOf('PassiveOpens') ?? -1;
    return at < 0 ? undefined : Number(values?.split(' ')[at]);
  } catch {
    return undefined;
  }
}

/** Counts, from its making on, how many connections a second come in where a process is, and what CPU others use. */
export class LoadWatch {
  readonly #groups: Readonly<Record<string, () => readonly (number | undefined)[]>>;
  readonly #startedAtMs = performance.now();
  /** What each process had used, by its id. */
  readonly #atStart = new Map<number, number>();
  readonly #samples: { readonly atMs: number; readonly count: number }[] = [];
  readonly #timer: NodeJS.Timeout;

  /** `pid` says who is watched now, as it may be started anew. */
  constructor(
    pid: () => number | undefined,
    groups: Readonly<Record<string, () => readonly (number | undefined)[]>>,
  ) {
    this.#groups = groups;
    for (const pid of this.#pids().flatMap(([, pids]) => pids))
      this.#atStart.set(pid, cpuSeconds([pid]));
    this.#timer = setInterval(() => {
      const current = pid();
      const count = current === undefined ? undefined : acceptedIn(current);
      if (count !== undefined) this.#samples.push({ atMs: performance.now(), count });
    }, sampleEveryMs);
  }

  /** Most connections within one second. */
  get peakPerSecond(): number {
    return Math.max(
      0,
      ...this.#samples.map(({ atMs, count }) => {
        const before = this.#samples.findLast((sample) => sample.atMs <= atMs - secondMs);
        return count - (before ?? this.#samples[0] ?? { count }).count;
      }),
    );
  }

  /** All connections so far. */
  get total(): number {
    return (this.#samples.at(-1)?.count ?? 0) - (this.#samples[0]?.count ?? 0);
  }

  /** CPU seconds of each group since the start, in words. A process that started later counts whole. */
  get cpuSplit(): string {
    const seconds = (performance.now() - this.#startedAtMs) / secondMs;
    const told = this.#pids().map(([name, pids]) => {
      const used = pids.map((pid) => cpuSeconds([pid]) - (this.#atStart.get(pid) ?? 0));
      return `${name} ${used.reduce((sum, each) => sum + each, 0).toFixed(1)}`;
    });
    return `${told.join(', ')} CPU seconds in ${seconds.toFixed(1)} s`;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #pids(): [string, number[]][] {
    return Object.entries(this.#groups).map(([name, pids]) => [
      name,
      pids().filter((pid) => pid !== undefined),
    ]);
  }
}
