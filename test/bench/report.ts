import type { IdleTunnels } from './idle-tunnels.ts';

export interface Direction {
  readonly gbitPerSecond: number;
  /** CPU seconds of all processes of the path per 10^9 payload bytes; NaN where no process stands between. */
  readonly cpuSecondsPerGb: number;
}

export interface PathResult {
  readonly name: string;
  readonly isEndToEnd: boolean;
  readonly up: Direction;
  readonly down: Direction;
  readonly roundTripMs: number;
  readonly newConnectionMs: number;
  readonly coldConnectMs: number;
}

function figure(value: number, digits: number): string {
  return Number.isNaN(value) ? '–' : value.toFixed(digits);
}

/** Slow links need a digit more to be told apart. */
function rate(gbitPerSecond: number): string {
  return figure(gbitPerSecond, gbitPerSecond < 1 ? 3 : 2);
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

/** Prints the tables in Markdown, so that they can stand in the documents as they are. */
export function printResults(report: {
  readonly results: readonly PathResult[];
  readonly idle: IdleTunnels | undefined;
  readonly left: readonly string[];
  readonly machine: { cpus: string; memoryGib: number; kernel: string; node: string };
  readonly link: string;
}): void {
  const { results, idle, machine } = report;
  console.log(
    `machine: ${machine.cpus}, ${machine.memoryGib} GiB, Linux ${machine.kernel}, Node ${machine.node}`,
  );
  console.log(`link: ${report.link}\n`);
  console.log(
    row([
      'path',
      'up Gbit/s',
      'down Gbit/s',
      'up CPU s/GB',
      'down CPU s/GB',
      'round trip ms',
      'new connection ms',
      'cold connect ms',
      'end to end',
    ]),
  );
  console.log(row(Array<string>(9).fill('---')));
  for (const result of results) {
    console.log(
      row([
        result.name,
        rate(result.up.gbitPerSecond),
        rate(result.down.gbitPerSecond),
        figure(result.up.cpuSecondsPerGb, 2),
        figure(result.down.cpuSecondsPerGb, 2),
        figure(result.roundTripMs, 2),
        figure(result.newConnectionMs, 2),
        figure(result.coldConnectMs, 0),
        result.isEndToEnd ? 'yes' : 'no',
      ]),
    );
  }
  const ours = results.find(({ name }) => name === 'ztna');
  if (ours && results.length > 1) {
    console.log(
      `\n${row(['ztna against', 'throughput up', 'throughput down', 'CPU per GB up', 'CPU per GB down', 'new connection', 'cold connect'])}`,
    );
    console.log(row(Array<string>(7).fill('---')));
    for (const other of results.filter((result) => result !== ours)) {
      const ratio = (a: number, b: number): string =>
        Number.isNaN(a / b) ? '–' : `${(a / b).toFixed(2)} ×`;
      console.log(
        row([
          other.name,
          ratio(ours.up.gbitPerSecond, other.up.gbitPerSecond),
          ratio(ours.down.gbitPerSecond, other.down.gbitPerSecond),
          ratio(ours.up.cpuSecondsPerGb, other.up.cpuSecondsPerGb),
          ratio(ours.down.cpuSecondsPerGb, other.down.cpuSecondsPerGb),
          ratio(ours.newConnectionMs, other.newConnectionMs),
          ratio(ours.coldConnectMs, other.coldConnectMs),
        ]),
      );
    }
    console.log(
      `\na new connection on an open tunnel answers within ${(ours.newConnectionMs / ours.roundTripMs).toFixed(2)} × the path's round trip`,
    );
  }
  if (idle) {
    console.log(`\n${row(['resident memory', 'KiB each'])}\n${row(['---', '---'])}`);
    console.log(
      row([
        `data plane, per idle tunnel (${idle.tunnels} tunnels)`,
        figure(idle.bytesPerTunnel / 1024, 1),
      ]),
    );
    console.log(
      row([
        `two bare mutual-TLS WebSockets (${idle.tunnels} pairs)`,
        figure(idle.bytesPerBarePair / 1024, 1),
      ]),
    );
    console.log(row(['ratio', `${(idle.bytesPerTunnel / idle.bytesPerBarePair).toFixed(2)} ×`]));
  }
  for (const reason of report.left) console.log(`left out: ${reason}`);
}
