import * as v from 'valibot';
import { ZtnaError } from './errors.ts';
import { bytes, natural } from './schema.ts';
import { verifyStatement, type VerifyingKey } from './statement.ts';

/** The control plane's clock for one nonce: kind `time`. */
export const timeSchema = v.strictObject({ nonce: bytes(16), timeMs: natural });

/** An exchange whose round trip took longer says too little about the time. */
export const maxTimeRoundTripMs = 2_000;

/** Two readings of the machine's own clocks, taken together. */
export interface LocalClocks {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/**
 * Estimates control time on a machine whose own clock may be wrong, asleep or stepped.
 * Assumed time is the answer plus the whole round trip, so it is never behind; between exchanges it advances
 * by the larger of monotonic and wall-clock elapsed, so neither sleep nor a stepped clock slows it.
 */
export class ControlTime {
  #anchor: { readonly timeMs: number; readonly at: LocalClocks } | undefined;

  /**
   * Anchors the estimate anew, also downwards. Ignored when the round trip was too long; answers whether it counted.
   * Throws ERR_STATEMENT_REFUSED for a bad signature or another nonce.
   */
  learn(
    statement: string,
    exchange: {
      readonly nonce: string;
      readonly sentAt: LocalClocks;
      readonly receivedAt: LocalClocks;
    },
    keys: readonly VerifyingKey[],
  ): boolean {
    const { nonce, timeMs } = verifyStatement('time', timeSchema, statement, keys);
    if (nonce !== exchange.nonce) throw new ZtnaError('ERR_STATEMENT_REFUSED');
    const roundTripMs = elapsedMs(exchange.sentAt, exchange.receivedAt);
    if (!(roundTripMs <= maxTimeRoundTripMs)) return false; // nor is a time that is no number believed
    this.#anchor = { timeMs: timeMs + roundTripMs, at: exchange.receivedAt };
    return true;
  }

  /** Control time now, in milliseconds, or undefined before the first exchange: then nothing may be believed. */
  nowMs(clocks: LocalClocks): number | undefined {
    if (!this.#anchor) return undefined;
    return Math.ceil(this.#anchor.timeMs + elapsedMs(this.#anchor.at, clocks));
  }
}

function elapsedMs(from: LocalClocks, to: LocalClocks): number {
  return Math.max(0, to.monotonicMs - from.monotonicMs, to.wallMs - from.wallMs);
}
