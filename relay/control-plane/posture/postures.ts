import { decodeMessage, postureFactsSchema, type DeviceId } from '../../../protocol/index.ts';
import { PostureBook, type HeardPosture } from './book.ts';
import type { Reader, Store, Tx } from '../store/index.ts';

export interface PosturesOptions {
  readonly store: Store;
  readonly maxAgeMs: number;
}

/**
 * Posture of devices as the deployment knows it: what this process has heard, and what others have written down. Facts
 * that change are written down at once by whoever decides on them; that they were said again, now and then.
 */
export class Postures {
  readonly #book = new PostureBook();
  readonly #store: Store;
  readonly #maxAgeMs: number;
  /** Of what the store has, by device. */
  readonly #keptAtMs = new Map<DeviceId, number>();
  readonly #unkept = new Set<DeviceId>();

  constructor({ store, maxAgeMs }: PosturesOptions) {
    this.#store = store;
    this.#maxAgeMs = maxAgeMs;
  }

  /** After this long, what was heard counts for nothing. */
  get maxAgeMs(): number {
    return this.#maxAgeMs;
  }

  /** Takes what a device said; answers whether a decision may come out otherwise. */
  note(device: DeviceId, heard: HeardPosture): boolean {
    const known = this.#book.newest(device);
    const wasStale = !known || heard.atMs >= known.atMs + this.#maxAgeMs;
    const change = this.#book.note(device, heard);
    if (change === 'older') return false;
    const keptAtMs = this.#keptAtMs.get(device) ?? 0;
    const isDue = change === 'changed' || heard.atMs - keptAtMs >= this.#maxAgeMs / 3;
    if (isDue) this.#unkept.add(device);
    return change === 'changed' || wasStale;
  }

  /** The newest that counts, as far as anybody knows. */
  async read(db: Reader | Tx, device: DeviceId, nowMs: number): Promise<HeardPosture | undefined> {
    const heard = this.#book.newest(device);
    if (heard && nowMs < heard.atMs + this.#maxAgeMs) return heard;
    const row = await db
      .selectFrom('postures')
      .selectAll()
      .where('deviceId', '=', device)
      .executeTakeFirst();
    if (!row || (heard && heard.atMs >= row.atMs)) return heard;
    return { facts: decodeMessage(postureFactsSchema, Buffer.from(row.factsJson)), atMs: row.atMs };
  }

  /** Writes down all that is due, in one transaction. */
  async keep(): Promise<void> {
    if (this.#unkept.size === 0) return;
    const due = [...this.#unkept];
    this.#unkept.clear();
    try {
      await this.#store.write(async (tx) => {
        for (const device of due) {
          const heard = this.#book.newest(device);
          if (heard) await this.#write(tx, device, heard);
        }
      });
    } catch (error) {
      for (const device of due) this.#unkept.add(device);
      throw error;
    }
  }

  /** Forgets what nobody goes by any more. */
  sweep(nowMs: number): void {
    this.#book.forgetBefore(nowMs - 2 * this.#maxAgeMs);
    for (const [device, atMs] of this.#keptAtMs) {
      if (atMs < nowMs - 2 * this.#maxAgeMs) this.#keptAtMs.delete(device);
    }
  }

  async #write(tx: Tx, device: DeviceId, { facts, atMs }: HeardPosture): Promise<void> {
    const row = { factsJson: JSON.stringify(facts), atMs };
    await tx
      .insertInto('postures')
      .values({ deviceId: device, ...row })
      .onConflict((conflict) =>
        conflict.column('deviceId').doUpdateSet(row).where('postures.atMs', '<=', atMs),
      )
      .execute();
    this.#store.afterCommit(tx, () => {
      this.#keptAtMs.set(device, atMs);
    });
  }
}
