import { ZtnaError } from '../errors.ts';
import { ControlTime, type LocalClocks } from '../control-time.ts';
import type { VerifyingKey } from '../statement.ts';

/** This machine's own clocks, read together. Neither is believed alone: one may sleep, the other may be stepped. */
export function readClocks(): LocalClocks {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

/** Control time on this machine: `ControlTime` fed with the machine's clocks. */
export class ControlClock {
  readonly #time = new ControlTime();
  readonly #read: () => LocalClocks;

  constructor(read: () => LocalClocks = readClocks) {
    this.#read = read;
  }

  /** This machine's clocks as this clock sees them: what `sentAt` and `receivedAt` of `learn` are made with. */
  readClocks(): LocalClocks {
    return this.#read();
  }

  /** As `ControlTime.learn`. */
  learn(
    statement: string,
    exchange: {
      readonly nonce: string;
      readonly sentAt: LocalClocks;
      readonly receivedAt: LocalClocks;
    },
    keys: readonly VerifyingKey[],
  ): boolean {
    return this.#time.learn(statement, exchange, keys);
  }

  /** Control time now in milliseconds; undefined before the first exchange. */
  nowMs(): number | undefined {
    return this.#time.nowMs(this.#read());
  }

  /** Control time now in milliseconds. Throws ERR_RELAY_UNAVAILABLE before the first exchange. */
  require(): number {
    const nowMs = this.nowMs();
    if (nowMs === undefined) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
        message: 'the control plane has not told the time yet',
        hop: 'relay',
        reason: 'time_unknown',
      });
    }
    return nowMs;
  }
}
