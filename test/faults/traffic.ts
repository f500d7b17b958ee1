import { untilStopped, type FlowReport, type FlowSpec } from './flow.ts';
import type { Place } from './network.ts';
import { Worker } from './worker.ts';

/** How one flow went, as both of its ends tell it. */
export interface FlowOutcome {
  readonly client: FlowReport;
  /** Undefined when its first bytes never reached the app. */
  readonly app: FlowReport | undefined;
}

/** What is wrong with a flow that should have gone through whole; empty when nothing is. */
export function faultsOf({ client, app }: FlowOutcome): string[] {
  if (!app) return [`flow ${client.flow} never reached the app`];
  const faults: string[] = [];
  const blame = (what: string): void => void faults.push(`flow ${client.flow}: ${what}`);
  for (const { violation } of [client, app]) if (violation !== null) blame(violation);
  if (app.end !== 'clean') blame(`the app saw it ${app.end}`);
  if (client.end !== 'clean') blame(`the client saw it ${client.end}`);
  const ways = [
    ['up', client, app],
    ['down', app, client],
  ] as const;
  for (const [way, from, to] of ways) {
    if (from.sentBytes !== to.receivedBytes)
      blame(`${way}: ${from.sentBytes} bytes sent, ${to.receivedBytes} received`);
    else if (from.sentDigest !== to.receivedDigest) blame(`${way}: digests differ`);
  }
  return faults;
}

/** The last bytes before an instant may have arrived so much earlier, and yet it is what stopped the next. */
const beforeMs = 250;

/** The longest that nothing arrived, at either end, of what began between two instants. */
export function longestGapMs(
  { client, app }: FlowOutcome,
  fromMs = 0,
  toMs = Number.POSITIVE_INFINITY,
): number {
  const lengths = [...client.gaps, ...(app?.gaps ?? [])]
    .filter((gap) => gap.toMs > fromMs)
    .filter((gap) => gap.fromMs >= fromMs - beforeMs && gap.fromMs < toMs - beforeMs)
    .map((gap) => gap.toMs - gap.fromMs);
  return Math.max(0, ...lengths);
}

let nextFlow = 1;

/** The app, the applications that use it, and what both saw. */
export class Traffic {
  readonly #app: Worker;
  readonly #clients = new Map<string, Worker>();
  readonly #owners = new Map<number, Worker>();
  readonly appPort: number;

  private constructor(app: Worker, appPort: number) {
    this.#app = app;
    this.appPort = appPort;
  }

  static async start(at: Place): Promise<Traffic> {
    const app = new Worker('./app-worker.ts', at.namespace);
    return new Traffic(app, await app.ask<number>('listen', { host: at.host }));
  }

  /** Opens a flow to a local port at a place; answers its number. */
  async open(
    at: Place,
    port: number,
    {
      cellBytes = 1_024,
      intervalMs = 50,
      upBytes = untilStopped,
      downBytes = untilStopped,
    }: Partial<FlowSpec> = {},
  ): Promise<number> {
    let worker = this.#clients.get(at.name);
    if (!worker)
      this.#clients.set(at.name, (worker = new Worker('./flow-worker.ts', at.namespace)));
    const flow = nextFlow++;
    this.#owners.set(flow, worker);
    await worker.ask('open', { port, spec: { flow, cellBytes, intervalMs, upBytes, downBytes } });
    return flow;
  }

  /** Has a flow send its last cell, after which the app sends its own. */
  async stopFlow(flow: number): Promise<void> {
    await this.#owner(flow).ask('stop', { flow });
  }

  /** Changes the pause between two cells, both ways. */
  async pace(flow: number, intervalMs: number): Promise<void> {
    await Promise.all(
      [this.#owner(flow), this.#app].map((end) => end.ask('pace', { flow, intervalMs })),
    );
  }

  /** How the flow went, once both of its ends are through, or as it is after that time. */
  async outcome(flow: number, withinMs = 60_000): Promise<FlowOutcome> {
    const endAtMs = Date.now() + withinMs;
    const atClient = this.#owner(flow).ask<FlowReport>('wait', { flow });
    const client = (await within(atClient, withinMs)) ?? (await this.atClients()).get(flow);
    if (!client) throw new Error(`no flow ${flow}`);
    const known = (await this.atApp()).get(flow);
    if (!known) return { client, app: undefined };
    const atApp = this.#app.ask<FlowReport>('wait', { flow });
    const app = await within(atApp, Math.max(1_000, endAtMs - Date.now()));
    return { client, app: app ?? (await this.atApp()).get(flow) };
  }

  /** How flows are now at the app. */
  async atApp(): Promise<ReadonlyMap<number, FlowReport>> {
    const { flows } = await this.#app.ask<{ flows: FlowReport[] }>('snapshot');
    return new Map(flows.map((report) => [report.flow, report]));
  }

  /** How the flows of every client are now at their own ends. */
  async atClients(): Promise<ReadonlyMap<number, FlowReport>> {
    const all = await Promise.all(
      [...this.#clients.values()].map((worker) => worker.ask<FlowReport[]>('snapshot')),
    );
    return new Map(all.flat().map((report) => [report.flow, report]));
  }

  async stop(): Promise<void> {
    for (const worker of [...this.#clients.values(), this.#app]) await worker.stop();
  }

  #owner(flow: number): Worker {
    const worker = this.#owners.get(flow);
    if (!worker) throw new Error(`no flow ${flow}`);
    return worker;
  }
}

/** The answer, or undefined when it takes longer. */
async function within<T>(answer: Promise<T>, ms: number): Promise<T | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(resolve, ms, undefined);
  try {
    return await Promise.race([answer, promise]);
  } finally {
    clearTimeout(timer);
  }
}
