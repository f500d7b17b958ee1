import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { request } from 'node:https';
import { createServer, connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Deployment, passwordOf } from './deployment.ts';
import type { LoopDelays } from './loop-probe.ts';
import type { Attack } from './sign-in-attack.ts';
import { runProgram } from './program.ts';

export interface StormOptions {
  readonly attempts: number;
  /** Whether a guess costs what it costs in production. */
  readonly isGuessDear: boolean;
  /** How long the flow is watched before. */
  readonly usualMs: number;
}

export interface StormFigures {
  /** How many attempts were answered with each status; 0 where the connection was refused. */
  readonly answers: Readonly<Record<number, number>>;
  readonly tookMs: number;
  /** Of the control plane and of the data plane, while the storm lasted. */
  readonly control: LoopDelays;
  readonly data: LoopDelays;
  /** The owner's own sign-in on a known device, begun in the middle of the storm. */
  readonly owner: {
    readonly exitCode: number | null;
    readonly stderr: string;
    readonly tookMs: number;
  };
  readonly flow: {
    readonly echoed: number;
    readonly longestGapMs: number;
    /** The same before the storm. */
    readonly usualGapMs: number;
    readonly isOpen: boolean;
  };
}

/**
 * Has strangers sign in all at once on the relay's page, while bytes flow through a tunnel: one half guesses at one user, who
 * signs in on a known device meanwhile, the other at names that there are not.
 */
export async function runStorm({
  attempts,
  isGuessDear,
  usualMs,
}: StormOptions): Promise<StormFigures> {
  const probeDir = mkdtempSync(join(tmpdir(), 'ztna-storm-'));
  const probe = new URL('loop-probe.ts', import.meta.url).href;
  const cheap = new URL('cheap-passwords.ts', import.meta.url).href;
  const imports = [probe, ...(isGuessDear ? [] : [cheap])].map((url) => `--import=${url}`);
  const app = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  app.listen(0, '127.0.0.1');
  await once(app, 'listening');
  const target = `tcp://127.0.0.1:${String((app.address() as AddressInfo).port)}`;
  let deployment: Deployment | undefined;
  try {
    deployment = await Deployment.start({
      apps: [{ name: 'echo', target }],
      isGuessDear: true,
      env: { relay: { NODE_OPTIONS: imports.join(' '), LOOP_PROBE_DIR: probeDir } },
    });
    const machine = await deployment.enrol('alice');
    // Another's: a sign-in on its own machine would hold a tunnel until it is decided on anew.
    const { port } = await deployment.connect(await deployment.enrol('bob'), 'echo');
    const flow = await EchoFlow.start(port);
    await delay(usualMs);
    const usualGapMs = flow.takeLongestGap();
    const { port: relayPort } = deployment;
    const path = await begin(relayPort);
    await readProbes(probeDir);
    const begunMs = performance.now();
    // In a thread of its own, so that attacking keeps no byte of the flow waiting.
    const attack = new Worker(new URL('sign-in-attack.ts', import.meta.url), {
      workerData: { port: relayPort, path, attempts } satisfies Attack,
    });
    const done = once(attack, 'message') as Promise<[number[]]>;
    const owner = signInOwner(machine.env, deployment.commands.ztna);
    const [statuses] = await done;
    const tookMs = performance.now() - begunMs;
    const probes = await readProbes(probeDir);
    const longestGapMs = flow.takeLongestGap();
    const answers: Record<number, number> = {};
    for (const status of statuses) answers[status] = (answers[status] ?? 0) + 1;
    const found = (part: string) => {
      const one = probes.find(({ command }) => command.includes(part));
      if (!one) throw new Error(`no figures of the ${part}`);
      return one;
    };
    return {
      answers,
      tookMs,
      control: found('control-plane'),
      data: found('data-plane'),
      owner: await owner,
      flow: { echoed: flow.echoed, longestGapMs, usualGapMs, isOpen: await flow.stop() },
    };
  } finally {
    await deployment?.stop();
    app.close();
    rmSync(probeDir, { recursive: true, force: true });
  }
}

/** A byte every few milliseconds, there and back. */
class EchoFlow {
  echoed = 0;
  #sent = 0;
  #longestGapMs = 0;
  #lastMs = performance.now();
  #isOpen = true;
  readonly #socket;
  readonly #timer;

  private constructor(port: number) {
    this.#socket = connect({ port, host: '127.0.0.1' });
    this.#socket.on('error', () => undefined);
    this.#socket.once('close', () => (this.#isOpen = false));
    this.#socket.on('data', (data) => {
      const nowMs = performance.now();
      this.#longestGapMs = Math.max(this.#longestGapMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
      this.echoed += data.length;
    });
    this.#timer = setInterval(() => {
      this.#sent += 1;
      this.#socket.write('x');
    }, 10);
  }

  static async start(port: number): Promise<EchoFlow> {
    const flow = new EchoFlow(port);
    await once(flow.#socket, 'data');
    return flow;
  }

  takeLongestGap(): number {
    const longest = this.#longestGapMs;
    this.#longestGapMs = 0;
    return longest;
  }

  /** Answers whether the connection lived, with every byte back. */
  async stop(): Promise<boolean> {
    clearInterval(this.#timer);
    while (this.#isOpen && this.echoed < this.#sent) await once(this.#socket, 'data');
    const isWhole = this.#isOpen && this.echoed === this.#sent;
    this.#socket.destroy();
    return isWhole;
  }
}

/** Begins a sign-in on the page that anybody may open, and answers where its form is sent. */
function begin(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: '/account', rejectUnauthorized: false };
    request(options, (answer) => {
      answer.resume();
      resolve(String(answer.headers.location));
    })
      .once('error', reject)
      .end();
  });
}

async function signInOwner(
  env: Readonly<Record<string, string>>,
  ztna: string,
): Promise<StormFigures['owner']> {
  await delay(300);
  const begunMs = performance.now();
  const input = `${passwordOf('alice')}\n`;
  const { code: exitCode, stderr } = await runProgram(ztna, ['login', '--password-stdin'], {
    env,
    input,
  });
  return { exitCode, stderr, tookMs: performance.now() - begunMs };
}

/** Has every process of the relay write what was since the last time, and reads that. */
async function readProbes(dir: string): Promise<LoopDelays[]> {
  const files = (await readdir(dir)).filter((name) => name.endsWith('.json'));
  const read = (name: string) => JSON.parse(readFileSync(join(dir, name), 'utf8')) as LoopDelays;
  return Promise.all(
    files.map(async (name) => {
      const { round } = read(name);
      process.kill(Number(name.replace('.json', '')), 'SIGUSR2');
      for (;;) {
        const now = read(name);
        if (now.round > round) return now;
        await delay(5);
      }
    }),
  );
}
