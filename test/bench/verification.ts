/**
 * `npm run bench -- verification`: what it costs one control plane to keep knowing whether its tunnels may live.
 *
 *   npm run bench -- verification                   10,000 tunnels of 1,000 users on SQLite
 *   npm run bench -- verification --tunnels 2000    fewer
 *   npm run bench -- verification --ticks 5         how many intervals are measured (default 2)
 *   npm run bench -- verification --timed           with policies that go by the time too
 *   npm run bench -- verification --postgres        the store is a PostgreSQL server of the bench's own
 *   npm run bench -- verification --json FILE       also writes every figure there
 *
 * The control plane is a real one with its own timers, at the default interval; only the channels end in this process,
 * behind the encoding of each message. CPU is that of the whole process, everything else that its timers do included;
 * of PostgreSQL's own work it is not a part.
 */
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { Evaluation } from '../../relay/control-plane/verification/reevaluate.ts';
import { fileEngine } from '../relay/control-plane/fixture.ts';
import { Rig } from '../relay/control-plane/service/rig.ts';
import { stopOwnPostgres } from '../support/shared-postgresql.ts';
import { Company, companyPolicies, timedPolicies } from './verification-world.ts';

const intervalMs = 20_000;
const postureEveryMs = 15_000;
/** Tunnels that are decided on one by one. */
const mostTimed = 1_000;

export interface VerificationFigures {
  readonly tunnels: number;
  readonly store: string;
  readonly policies: number;
  readonly cpu: string;
  /** CPU seconds of the whole process while every tunnel is verified once, nothing having changed. */
  readonly unchangedCpuSeconds: number;
  /** Of one interval in which nothing is verified: what else the control plane does for as many channels. */
  readonly restCpuSeconds: number;
  readonly changedPolicy: {
    /** Until the command has answered: every tunnel is decided on in its transaction. */
    readonly applyCpuSeconds: number;
    readonly applyWallSeconds: number;
    /** And then once more by the timer, which writes every decision down anew. */
    readonly tickCpuSeconds: number;
  };
  /** One tunnel, decided on with everything that it rests on read from the store. */
  readonly decisionMs: { readonly p50: number; readonly p99: number };
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Resolves once the timers have verified as many tunnels; answers the CPU seconds that went by. */
async function verified(rig: Rig, count: number): Promise<number> {
  const { schedule } = rig.plane.services;
  const takeDue = schedule.takeDue.bind(schedule);
  let done = 0;
  const enough = Promise.withResolvers<undefined>();
  schedule.takeDue = (...args) => {
    // What was taken before is done by now: verifications follow each other.
    if (done >= count) enough.resolve(undefined);
    const due = takeDue(...args);
    done += due.length;
    return due;
  };
  const before = cpuSeconds();
  await enough.promise;
  schedule.takeDue = takeDue;
  return ((cpuSeconds() - before) * count) / done;
}

/** Runs `work` while nothing comes up for verification. */
async function paused<T>(rig: Rig, work: () => Promise<T>): Promise<T> {
  const { schedule } = rig.plane.services;
  const takeDue = schedule.takeDue.bind(schedule);
  schedule.takeDue = () => [];
  try {
    await rig.settled();
    return await work();
  } finally {
    schedule.takeDue = takeDue;
  }
}

async function restOfInterval(): Promise<number> {
  const before = cpuSeconds();
  await delay(intervalMs);
  return cpuSeconds() - before;
}

async function decisionTimes(rig: Rig): Promise<{ p50: number; p99: number }> {
  const { services } = rig.plane;
  const ms: number[] = [];
  const tunnels = [...services.tunnels.all()];
  const each = Math.max(1, Math.floor(tunnels.length / mostTimed));
  for (const tunnel of tunnels.filter((_, at) => at % each === 0)) {
    const startedAt = performance.now();
    const evaluated = await new Evaluation(
      services,
      services.store.db,
      services.clock.nowMs(),
    ).evaluate(tunnel);
    ms.push(performance.now() - startedAt);
    if (ms.length % 20 === 0) await setImmediate(); // devices tell of themselves meanwhile
    if (evaluated?.decision.verdict !== 'allow') throw new Error('a tunnel is not allowed');
  }
  ms.sort((a, b) => a - b);
  const at = (part: number) => ms[Math.floor(ms.length * part)] ?? 0;
  return { p50: at(0.5), p99: at(0.99) };
}

async function measure(options: {
  readonly tunnels: number;
  readonly ticks: number;
  readonly isTimed: boolean;
}): Promise<VerificationFigures> {
  const { tunnels, ticks, isTimed } = options;
  const files = isTimed ? timedPolicies : companyPolicies;
  const rig = await Rig.start({ verification: { intervalMs, holdMs: 300_000 } });
  let telling: NodeJS.Timeout | undefined;
  try {
    const { services } = rig.plane;
    await rig.admin('policy.apply', { files });
    const company = new Company(services);
    await company.open(tunnels);
    telling = setInterval(() => {
      company.tellPosture();
    }, postureEveryMs);
    console.error('every tunnel is open; waiting for their moments to drift apart …');
    const isNew = () =>
      [...services.tunnels.all()].some(({ confirmations }) => confirmations === 0);
    do await verified(rig, tunnels);
    while (isNew()); // on a busy machine the first decisions take long
    console.error(`measuring ${String(ticks)} ticks of ${String(intervalMs / 1_000)} s …`);
    const unchanged = (await verified(rig, ticks * tunnels)) / ticks;
    const restCpuSeconds = await paused(rig, restOfInterval);
    console.error('every tunnel, decided on anew …');
    const decisionMs = await paused(rig, () => decisionTimes(rig));
    const before = cpuSeconds();
    const startedAt = performance.now();
    const changed = {
      ...files,
      'more.cedar':
        '@id("more") forbid (principal, action, resource) when { context.network.country == "KP" };',
    };
    const applied = await rig.admin<{ tunnelsEnded: number }>('policy.apply', { files: changed });
    const applyWallSeconds = (performance.now() - startedAt) / 1e3;
    const applyCpuSeconds = cpuSeconds() - before;
    const tickCpuSeconds = await verified(rig, tunnels);
    if (applied.tunnelsEnded > 0 || services.tunnels.size < tunnels)
      throw new Error('tunnels ended');
    return {
      tunnels,
      store: services.store.engine,
      policies: services.policy.policies.length,
      cpu: `${String(cpus().length)} × ${cpus()[0]?.model ?? 'unknown'}`,
      unchangedCpuSeconds: unchanged,
      restCpuSeconds,
      changedPolicy: { applyCpuSeconds, applyWallSeconds, tickCpuSeconds },
      decisionMs,
    };
  } finally {
    clearInterval(telling);
    await rig.stop();
    await stopOwnPostgres();
  }
}

export async function runVerificationBench(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tunnels: { type: 'string', default: '10000' },
      ticks: { type: 'string', default: '2' },
      timed: { type: 'boolean', default: false },
      postgres: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  });
  fileEngine.isPostgres = values.postgres;
  const figures = await measure({
    tunnels: Number(values.tunnels),
    ticks: Number(values.ticks),
    isTimed: values.timed,
  });
  const { changedPolicy, decisionMs } = figures;
  const row = (what: string, value: number, unit: string) => {
    console.log(`| ${what} | ${value.toFixed(3)} ${unit} |`);
  };
  console.log(
    `${String(figures.tunnels)} tunnels, ${String(figures.policies)} policies, ${figures.store}, ${figures.cpu}, Node ${process.version}\n`,
  );
  console.log('| what | cost |');
  console.log('| --- | --- |');
  row(
    'a tick in which nothing changed, with all else that goes on',
    figures.unchangedCpuSeconds,
    'CPU s',
  );
  row('  of that, what goes on without verification', figures.restCpuSeconds, 'CPU s');
  row('another policy: decided on in its transaction', changedPolicy.applyCpuSeconds, 'CPU s');
  row('  until the command has answered', changedPolicy.applyWallSeconds, 's');
  row(
    '  and the tick after it, every decision written down',
    changedPolicy.tickCpuSeconds,
    'CPU s',
  );
  row('one decision with all that it reads, p50', decisionMs.p50, 'ms');
  row('  p99', decisionMs.p99, 'ms');
  if (values.json !== undefined) await writeFile(values.json, JSON.stringify(figures, null, 2));
}
