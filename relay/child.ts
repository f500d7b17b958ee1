import * as v from 'valibot';
import { errorRow, isErrorCode, toZtnaError, ZtnaError } from '../protocol/index.ts';
import { createLogger, logLevel, type Logger } from '../protocol/host/index.ts';

/** What the supervisor tells a child, as its one argument. Never a secret. */
const settingsSchema = v.strictObject({
  dir: v.string(),
  listen: v.strictObject({ host: v.string(), port: v.number() }),
  adminListen: v.nullable(v.strictObject({ host: v.string(), port: v.number() })),
  /** How long tunnels may take to move away when the relay stops. */
  drainMs: v.number(),
  /** There is no control plane on this host. */
  isDataPlaneAlone: v.boolean(),
});
export type ChildSettings = v.InferOutput<typeof settingsSchema>;

/** What a data plane counts, for the metrics of its relay. */
const countsSchema = v.strictObject({
  connections: v.number(),
  tunnels: v.number(),
  connectors: v.number(),
  controlPlanes: v.number(),
});
export type DataPlaneCounts = Readonly<v.InferOutput<typeof countsSchema>>;

/** What a child tells the supervisor: once that it serves, or why it cannot; and that it has drained. */
export const fromChild = v.variant('type', [
  v.strictObject({ type: v.literal('drained') }),
  v.strictObject({ type: v.literal('counts'), counts: countsSchema }),
  v.strictObject({ type: v.literal('ready'), port: v.nullable(v.number()) }),
  v.strictObject({
    type: v.literal('failed'),
    code: v.string(),
    message: v.string(),
    hint: v.nullable(v.string()),
  }),
]);
export type FromChild = v.InferOutput<typeof fromChild>;

/** The failure that a child reported, as the error it was. */
export function failureOf(message: Extract<FromChild, { type: 'failed' }>): ZtnaError {
  return new ZtnaError(isErrorCode(message.code) ? message.code : 'ERR_INTERNAL', {
    message: message.message,
    ...(message.hint === null ? {} : { hint: message.hint }),
  });
}

export interface RunningChild {
  /** The port it serves on, where there is one. */
  readonly port?: number;
  /** Resolves, if ever, with why it ended by itself; whether it is started again is the supervisor's to say. */
  readonly over?: Promise<ZtnaError>;
  /** What it counts, to be told to the process beside it. */
  counts?(): DataPlaneCounts;
  /** Hears what the data plane beside it counts; null while there is none. */
  takeCounts?(counts: DataPlaneCounts | null): void;
  /** Takes on nothing new and resolves once nothing is left, or it has waited long enough. Idempotent. */
  drain?(): Promise<void>;
  /** Ends what it does in good order. Idempotent. */
  stop(): Promise<void>;
}

/** What the supervisor tells a child: that the end is near, and that this is it. */
export const drainMessage = { type: 'drain' } as const;
export const stopMessage = { type: 'stop' } as const;
const toChild = v.variant('type', [
  v.strictObject({ type: v.literal('drain') }),
  v.strictObject({ type: v.literal('stop') }),
  v.strictObject({ type: v.literal('counts'), counts: v.nullable(countsSchema) }),
]);
export type ToChild = v.InferOutput<typeof toChild>;

/** How often a data plane tells what it counts. */
const countEveryMs = 1_000;

/** How long a child that got a signal waits for the supervisor's word. */
const groupSignalMs = 1_000;

/** How long a child may take to end in good order once its parent is gone. */
const orphanMs = 2_000;

/**
 * Runs one of the relay's processes under the supervisor: reports `ready` or `failed` to it, stops at its word, and
 * never outlives it.
 */
export async function runChild(
  program: string,
  start: (settings: ChildSettings, logger: Logger) => Promise<RunningChild>,
): Promise<void> {
  const logger = createLogger({ program, level: logLevel() });
  let running: RunningChild | undefined;
  let isStopping = false;
  /** The supervisor has said that it will say when. */
  let isAwaited = false;
  const stop = () => {
    if (isStopping) return;
    isStopping = true;
    if (!running) process.exit(0);
    running.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error('stop_failed', { message: String(error) });
        process.exit(1);
      },
    );
  };
  const drain = () => {
    isAwaited = true;
    if (running?.drain === undefined) {
      report({ type: 'drained' });
      return;
    }
    running.drain().then(
      () => {
        report({ type: 'drained' });
      },
      (error: unknown) => {
        logger.error('drain_failed', { message: String(error) });
        report({ type: 'drained' });
      },
    );
  };
  process.on('message', (data) => {
    const message = v.parse(toChild, data);
    if (message.type === 'drain') drain();
    else if (message.type === 'stop') stop();
    else running?.takeCounts?.(message.counts);
  });
  process.on('SIGINT', () => undefined);
  // Whoever ends the whole group reaches this process too: the supervisor knows who goes first.
  process.on('SIGTERM', () => {
    setTimeout(() => {
      if (!isAwaited) stop();
    }, groupSignalMs);
  });
  process.on('disconnect', () => {
    setTimeout(() => process.exit(0), orphanMs).unref();
    stop();
  });
  // A parent that was gone before the first line above ran leaves no event behind.
  if (!process.connected) process.exit(0);
  try {
    running = await start(v.parse(settingsSchema, JSON.parse(process.argv[2] ?? '')), logger);
    void running.over?.then(fail);
    if (running.counts) setInterval(() => tellCounts(running), countEveryMs).unref();
    report({ type: 'ready', port: running.port ?? null });
  } catch (cause) {
    const error = toZtnaError(cause);
    if (error.code === 'ERR_INTERNAL')
      logger.error('start_failed', { message: String(error.cause) });
    fail(error);
  }
}

function tellCounts(running: RunningChild | undefined): void {
  const counts = running?.counts?.();
  if (counts) report({ type: 'counts', counts });
}

/** Tells the supervisor why there is no point in going on, and ends. */
function fail({ code, message, hint }: ZtnaError): void {
  report({ type: 'failed', code, message, hint: hint ?? null }, () => {
    process.exit(errorRow(code).exitCode);
  });
}

function report(message: FromChild, then: () => void = () => undefined): void {
  if (process.connected) process.send?.(message, then);
  else then();
}
