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

/** Two clocks that drift apart by more than this between two readings have been stepped or asleep. */
const clockJumpMs = 50;

/**
 * Estimates control time on a machine whose own clock may be wrong, asleep or stepped.
 * Assumed time is the answer plus the whole round trip, so it is never behind; between exchanges it advances
 * by the larger of monotonic and wall-clock elapsed, so neither sleep nor a stepped clock slows it. Read it on a
 * tick: a sleep and a step back that both fall between two readings can hide each other until the next exchange.
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
    const anchor = this.#anchor;
    if (!anchor) return undefined;
    const timeMs = anchor.timeMs + elapsedMs(anchor.at, clocks);
    // A clock that was stepped back must not eat up what a later sleep adds to it, so elapsed starts anew from here.
    if (Math.abs(apartMs(clocks) - apartMs(anchor.at)) > clockJumpMs) {
      this.#anchor = { timeMs, at: clocks };
    }
    return Math.ceil(timeMs);
  }
}

function apartMs(clocks: LocalClocks): number {
  return clocks.wallMs - clocks.monotonicMs;
}

function elapsedMs(from: LocalClocks, to: LocalClocks): number {
  return Math.max(0, to.monotonicMs - from.monotonicMs, to.wallMs - from.wallMs);
}
