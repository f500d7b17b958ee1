import { Fifo } from './fifo.ts';
import type { Stream } from './stream.ts';

/**
 * The streams of a tunnel. One that is over stays, as lingering, until the peer has acknowledged its last frame:
 * only then can the peer have nothing more to say about it.
 */
export class StreamTable {
  readonly #streams = new Map<number, Stream>();
  readonly #lastFrames = new Fifo<{ readonly stream: Stream; readonly number: number }>();
  #liveCount = 0;

  /** Streams that are not over. */
  get liveCount(): number {
    return this.#liveCount;
  }

  get lingeringCount(): number {
    return this.#streams.size - this.#liveCount;
  }

  get(id: number): Stream | undefined {
    return this.#streams.get(id);
  }

  all(): Iterable<Stream> {
    return this.#streams.values();
  }

  add(stream: Stream): void {
    this.#streams.set(stream.id, stream);
    this.#liveCount++;
  }

  /** The stream is over. Call once. */
  retire(stream: Stream): void {
    this.#liveCount--;
    this.forgetWhenDone(stream);
  }

  /** The stream sent its last frame, under this number. */
  sentLast(stream: Stream, number: number): void {
    this.#lastFrames.push({ stream, number });
  }

  /** The peer has received everything up to this number. */
  acknowledge(number: number): void {
    for (;;) {
      const last = this.#lastFrames.peek();
      if (last === undefined || last.number > number) return;
      this.#lastFrames.shift();
      last.stream.acknowledged(last.number);
      this.forgetWhenDone(last.stream);
    }
  }

  forgetWhenDone(stream: Stream): void {
    if (stream.isForgettable) this.#streams.delete(stream.id);
  }

  /** Removes and returns all streams. */
  clear(): Stream[] {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#lastFrames.clear();
    this.#liveCount = 0;
    return streams;
  }
}
