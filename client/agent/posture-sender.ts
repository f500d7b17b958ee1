import {
  postureStatementSchema,
  signStatement,
  type DeviceId,
  type DevicePosture,
  type ExtraCheck,
  type FromDevice,
  type SigningKey,
  type ToDevice,
  type ZtnaError,
} from '../../protocol/index.ts';
import type { ControlClock } from '../../protocol/host/index.ts';

/** What finds out about the machine. */
export interface PostureSource {
  /** Begins, or goes on with other checks: facts are told as soon as they are known, at every change, and at least so often. */
  start(options: {
    readonly everyMs: number;
    readonly checks: readonly ExtraCheck[];
    /** `tookMs` is how long ago the first of them was looked at. */
    readonly onFacts: (facts: DevicePosture, tookMs: number) => void;
  }): void;
  stop(): void;
}

/** How long a request waits for what the machine says of itself: a little more than collecting may take. */
const saidWithinMs = 9_000;

export interface PostureSenderOptions {
  /** Without one, nothing is said. */
  readonly source?: PostureSource;
  readonly clock: Pick<ControlClock, 'nowMs'>;
  readonly device: () => { readonly id: DeviceId; readonly key: SigningKey };
  /** Sends on the present control channel, if there is one. */
  readonly send: (message: FromDevice) => void;
}

type Wanted = Extract<ToDevice, { type: 'posture_wanted' }>;

/** Signs what the machine says of itself for the control channel that asks, in order, and sends it. */
export class PostureSender {
  readonly #options: PostureSenderOptions;
  #wanted: Wanted | undefined;
  #sequence = 0;
  #hasSaid = false;
  #isStopped = false;
  #sent = Promise.withResolvers<undefined>();

  constructor(options: PostureSenderOptions) {
    this.#options = options;
  }

  /** A channel asks: what was said on another counts for nothing on it. */
  wanted(message: Wanted): void {
    if (this.#isStopped) return;
    this.#wanted = message;
    this.#sequence = 0;
    this.#hasSaid = false;
    const waitedFor = this.#sent;
    this.#sent = Promise.withResolvers();
    void this.#sent.promise.then(waitedFor.resolve); // whoever began to wait before the channel asked
    const { source } = this.#options;
    if (!source) this.#sent.resolve(undefined);
    source?.start({
      everyMs: message.everyMs,
      checks: message.checks,
      onFacts: (facts, tookMs) => {
        this.#send(message, facts, tookMs);
      },
    });
  }

  /** True once something was said on the channel that asked last. */
  get hasSaid(): boolean {
    return this.#hasSaid;
  }

  /** Resolves once something was said on the channel that asked last, or after so long. */
  async said(withinMs = saidWithinMs): Promise<void> {
    const { promise: tooLong, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(resolve, withinMs, undefined);
    await Promise.race([this.#sent.promise, tooLong]);
    clearTimeout(timer);
  }

  stop(): void {
    this.#isStopped = true;
    this.#options.source?.stop();
    this.#sent.resolve(undefined);
  }

  #send(asked: Wanted, facts: DevicePosture, tookMs: number): void {
    const { clock, device, send } = this.#options;
    const nowMs = clock.nowMs();
    if (this.#isStopped || this.#wanted !== asked || nowMs === undefined) return;
    const atMs = Math.max(0, nowMs - tookMs);
    const { id, key } = device();
    const statement = signStatement(
      'posture',
      postureStatementSchema,
      { device: id, nonce: asked.nonce, sequence: this.#sequence++, atMs, facts },
      key,
    );
    send({ type: 'posture', statement });
    this.#hasSaid = true;
    this.#sent.resolve(undefined);
  }
}

/** True for a refusal that may only mean that the device had not said yet what it is asked for. */
export function isUnheard(error: ZtnaError): boolean {
  return error.code === 'ERR_POSTURE_UNHEALTHY';
}
