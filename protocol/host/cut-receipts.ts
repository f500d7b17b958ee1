import { setImmediate as turn } from 'node:timers/promises';
import { cutReceiptSchema, type CutReceipt } from '../receipt.ts';
import { signStatement, type SigningKey } from '../statement.ts';
import type { ControlClock } from './clock.ts';

/** Receipts that wait; beyond, the oldest are dropped, and that is all that is lost with them. */
const maxWaiting = 16_384;

/** Signed in one go; the bytes of others do not wait longer for it. */
const signedAtOnce = 32;

/** A tunnel that was cut here, as its owner knows it. */
export interface Cut extends Pick<
  CutReceipt,
  'tunnel' | 'generation' | 'action' | 'reason' | 'incarnation' | 'position'
> {
  readonly bytesUp: number;
  readonly bytesDown: number;
  /** When the last byte passed, as `performance.now()` tells it; null when none did. */
  readonly lastByteAt: number | null;
}

export interface CutReceiptsOptions {
  readonly by: () => { readonly id: CutReceipt['by']; readonly key: SigningKey };
  readonly clock: Pick<ControlClock, 'nowMs'>;
  /** Answers false while nobody can be told. */
  readonly send: (statement: string) => boolean;
}

/** Signs when decisions took effect here, behind the cutting itself, and tells the control plane. */
export class CutReceipts {
  readonly #options: CutReceiptsOptions;
  #waiting: Omit<CutReceipt, 'by'>[] = [];
  #isRunning = false;

  constructor(options: CutReceiptsOptions) {
    this.#options = options;
  }

  /** Notes a cut that has just been made. */
  add({ lastByteAt, ...cut }: Cut): void {
    const cutAtMs = this.#options.clock.nowMs();
    if (cutAtMs === undefined) return;
    const agoMs = lastByteAt === null ? 0 : Math.max(0, performance.now() - lastByteAt);
    const lastByteAtMs = lastByteAt === null ? 0 : Math.round(Math.max(0, cutAtMs - agoMs));
    this.#waiting.push({ ...cut, cutAtMs: Math.round(cutAtMs), lastByteAtMs });
    if (this.#waiting.length > maxWaiting) this.#waiting.shift();
    this.flush();
  }

  /** Tells what waits; to be called when somebody can be told again. */
  flush(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run().finally(() => {
      this.#isRunning = false;
    });
  }

  async #run(): Promise<void> {
    const { by, send } = this.#options;
    for (;;) {
      await turn();
      const { id, key } = by();
      for (const receipt of this.#waiting.slice(0, signedAtOnce)) {
        if (!send(signStatement('receipt', cutReceiptSchema, { by: id, ...receipt }, key))) return;
        this.#waiting.shift();
      }
      if (this.#waiting.length === 0) return;
    }
  }
}
