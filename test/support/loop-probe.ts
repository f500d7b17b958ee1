/**
 * Loaded into a program, it measures how late that one's event loop is: SIGUSR2 begins anew and writes what was since the last
 * one into a file of its process in LOOP_PROBE_DIR.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface LoopDelays {
  /** What the process is: its program and arguments. */
  readonly command: string;
  readonly round: number;
  /** 50 %, 99 % and the longest, in milliseconds. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly cpuMs: number;
}

const resolutionMs = 5;
const directory = process.env['LOOP_PROBE_DIR'];
if (directory !== undefined) {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  let round = 0;
  let before = process.cpuUsage();
  const write = () => {
    // The histogram counts whole intervals of the timer that it sleeps by.
    const late = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - resolutionMs);
    const used = process.cpuUsage(before);
    const delays: LoopDelays = {
      command: process.argv.slice(1).join(' '),
      round,
      p50Ms: late(histogram.percentile(50)),
      p99Ms: late(histogram.percentile(99)),
      maxMs: late(histogram.max),
      cpuMs: (used.user + used.system) / 1000,
    };
    const path = join(directory, `${process.pid}.json`);
    writeFileSync(`${path}.new`, JSON.stringify(delays));
    renameSync(`${path}.new`, path);
    histogram.reset();
    before = process.cpuUsage();
    round += 1;
  };
  process.on('SIGUSR2', write);
  write();
}
