import { execFile, fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import { errorRow, TokenBucket, type ZtnaError } from '../protocol/index.ts';
import { compileCacheVariable, fullJitterDelayMs, type Logger } from '../protocol/host/index.ts';
import {
  drainMessage,
  failureOf,
  fromChild,
  stopMessage,
  type ChildSettings,
  type DataPlaneCounts,
  type ToChild,
} from './child.ts';
import type { ListenAddress } from './config.ts';
import { lockDirectory } from './directory-lock.ts';

export interface SupervisorOptions {
  readonly dir: string;
  readonly listen: ListenAddress;
  readonly adminListen: ListenAddress | null;
  /** How long tunnels may take to move away at the end. */
  readonly drainMs: number;
  /** Runs the data plane and nothing else. */
  readonly isDataPlaneAlone?: boolean;
  readonly logger: Logger;
  /** Runs once, when its processes serve for the first time, with the public port. */
  readonly onReady: (port: number) => void;
  /** Programs in place of the relay's own, for tests. */
  readonly programs?: Readonly<Record<ChildName, string>>;
}

type ChildName = 'control-plane' | 'data-plane';

/** One that lived this long counts as healthy: the next restart is quick again. */
const healthyMs = 10_000;
/** One that had served is started again at once, so often in a row, and then once in so long. */
const promptRestarts = 5;
const promptEveryMs = 12_000;
/** Beyond the time that tunnels have, draining is given up. */
const drainMarginMs = 5_000;
/** A process that takes longer to end is killed. */
const stopMs = 15_000;

/**
 * Keeps the relay's processes running, two or the data plane alone: whichever dies is started again, at once if it had
 * served, and sooner or later by full jitter when that does not last. They hold a pipe to this process and end with it, however it ends.
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #data: Child;
  readonly #control: Child | undefined;
  #onCounts: (counts: DataPlaneCounts | null) => void = () => undefined;
  #isReady = false;
  #stopping: Promise<void> | undefined;
  #fail: (error: ZtnaError) => void = () => undefined;
  /** Rejects when a process cannot start, or go on, for a reason that only its operator can mend. */
  readonly failed: Promise<never>;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => undefined);
    const child = (name: ChildName) =>
      new Child(name, options, {
        onReady: () => {
          this.#childReady();
        },
        onCounts: (counts) => {
          if (name === 'data-plane') this.#onCounts(counts);
        },
        onFailure: (error) => {
          // We hold the directory: whoever has the store is what a killed predecessor left, and ends by itself.
          const isPassing = error.code === 'ERR_CONFIG_LOCKED';
          const isMisuse = !this.#isReady && !isPassing && errorRow(error.code).family === 'misuse';
          // A relay that was removed is none any more, whenever it finds out.
          const isFatal = isMisuse || error.code === 'ERR_IDENTITY_REVOKED';
          if (isFatal) this.#fail(error);
          else options.logger.warn('child_refused', { child: name, error: error.message });
          return isFatal;
        },
      });
    this.#control = options.isDataPlaneAlone === true ? undefined : child('control-plane');
    this.#onCounts = (counts) => {
      this.#control?.send({ type: 'counts', counts });
    };
    this.#data = child('data-plane');
  }

  start(): void {
    this.#control?.start();
    this.#data.start();
  }

  #childReady(): void {
    if (this.#isReady || this.#control?.isReady === false || !this.#data.isReady) return;
    this.#isReady = true;
    notifySystemd();
    this.#options.onReady(this.#data.port);
  }

  /**
   * Drains, then ends the control plane, and last the data plane: tunnels that move ask for their new paths until they
   * have, and what the control plane says at its end passes through the data plane. Idempotent.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    for (const child of [this.#control, this.#data]) child?.keepDown();
    await Promise.all([this.#control?.drain(), this.#data.drain()]);
    await this.#control?.stop();
    await this.#data.stop();
  }
}

/** What names the store and its password (PGPASSWORD, PGPASSFILE, …) is none of the data plane's business. */
function withoutStore(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^PG[A-Z]/.test(name)));
}

interface ChildEvents {
  readonly onReady: () => void;
  /** What it counts; null once it ended. */
  readonly onCounts: (counts: DataPlaneCounts | null) => void;
  /** Answers whether there is no point in another try. */
  readonly onFailure: (error: ZtnaError) => boolean;
}

class Child {
  readonly #name: ChildName;
  readonly #options: SupervisorOptions;
  readonly #events: ChildEvents;
  #process: ChildProcess | undefined;
  #restart: NodeJS.Timeout | undefined;
  #failures = 0;
  readonly #prompt = new TokenBucket(promptRestarts, 1_000 / promptEveryMs);
  #isStopping = false;
  #onDrained: () => void = () => undefined;
  isReady = false;
  port: number;

  constructor(name: ChildName, options: SupervisorOptions, events: ChildEvents) {
    this.#name = name;
    this.#options = options;
    this.#events = events;
    this.port = options.listen.port;
  }

  start(): void {
    const { dir, listen, adminListen, drainMs, logger, isDataPlaneAlone = false } = this.#options;
    const startedAtMs = performance.now();
    // A port that the system chose stays the same over restarts.
    const settings: ChildSettings = {
      dir,
      listen: { host: listen.host, port: this.port },
      adminListen,
      drainMs,
      isDataPlaneAlone,
    };
    const child = fork(this.#program(), [JSON.stringify(settings)], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      env: {
        ...(this.#name === 'data-plane' ? withoutStore(process.env) : process.env),
        ...compileCacheVariable(),
      },
    });
    this.#process = child;
    let isHopeless = false;
    child.on('message', (data) => {
      const message = v.safeParse(fromChild, data);
      if (!message.success) return;
      if (message.output.type === 'failed') {
        isHopeless = this.#events.onFailure(failureOf(message.output));
        return;
      }
      if (message.output.type === 'drained') {
        this.#onDrained();
        return;
      }
      if (message.output.type === 'counts') {
        this.#events.onCounts(message.output.counts);
        return;
      }
      this.isReady = true;
      this.port = message.output.port ?? this.port;
      logger.info('child_ready', { child: this.#name, pid: child.pid });
      this.#events.onReady();
    });
    child.on('error', (error) => {
      logger.error('child_failed', { child: this.#name, message: error.message });
    });
    child.once('exit', (code, signal) => {
      const hadServed = this.isReady;
      this.#process = undefined;
      this.isReady = false;
      this.#events.onCounts(null);
      if (this.#isStopping || isHopeless) return;
      const nowMs = performance.now();
      if (nowMs - startedAtMs >= healthyMs) this.#failures = 0;
      const isPrompt = hadServed && this.#prompt.take(nowMs);
      const delayMs = isPrompt ? 0 : fullJitterDelayMs(this.#failures++, { capMs: 5_000 });
      logger.warn('child_exited', {
        child: this.#name,
        code,
        signal,
        restartInMs: Math.round(delayMs),
      });
      this.#restart = setTimeout(() => {
        this.start();
      }, delayMs);
    });
  }

  #program(): string {
    const own = this.#options.programs?.[this.#name];
    if (own !== undefined) return own;
    const here = import.meta.url;
    return fileURLToPath(
      new URL(`./${this.#name}/main${here.endsWith('.ts') ? '.ts' : '.js'}`, here),
    );
  }

  /** Tells it something that it can do without. */
  send(message: ToChild): void {
    if (this.#process?.connected === true) this.#process.send(message, () => undefined);
  }

  /** From here on it is not started again. */
  keepDown(): void {
    this.#isStopping = true;
    clearTimeout(this.#restart);
  }

  /** Resolves once it has drained or ended, or could by now. */
  drain(): Promise<void> {
    const child = this.#process;
    if (!child) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#options.logger.warn('child_not_drained', { child: this.#name });
        resolve();
      }, this.#options.drainMs + drainMarginMs);
      const settle = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#onDrained = settle;
      child.once('exit', settle);
      child.send(drainMessage, () => undefined);
    });
  }

  stop(): Promise<void> {
    this.keepDown();
    const child = this.#process;
    if (!child) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#options.logger.warn('child_killed', { child: this.#name });
        child.kill('SIGKILL');
      }, stopMs);
      child.once('exit', () => {
        clearTimeout(timer);
        resolve();
      });
      // Its pipe may be closing already; then it is ending by itself.
      child.send(stopMessage, () => undefined);
    });
  }
}

/** Tells systemd, where it started us and its helper is at hand. */
function notifySystemd(): void {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  execFile('systemd-notify', ['--ready'], () => undefined);
}

/**
 * `ztna-relay run`: runs until `signal` aborts, then drains its processes. Prints `ready` on stdout when they serve.
 * Throws ERR_CONFIG_LOCKED, naming the process, before anything starts while another one runs on the directory; and
 * what made a first start hopeless.
 */
export async function runSupervisor(
  options: Omit<SupervisorOptions, 'onReady'> & { readonly signal: AbortSignal },
): Promise<void> {
  const lock = lockDirectory(join(options.dir, 'run.lock'));
  const supervisor = new Supervisor({
    ...options,
    onReady: () => {
      process.stdout.write('ready\n');
    },
  });
  const { signal } = options;
  supervisor.start();
  try {
    await Promise.race([aborted(signal), supervisor.failed]);
  } finally {
    await supervisor.stop();
    lock.release();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener(
      'abort',
      () => {
        resolve();
      },
      { once: true },
    );
  });
}
