import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const block = randomBytes(16_384);

/** An end that has sent what it was to goes on with this much at a time, which fills no window for seconds. */
const slowBytes = 512;
const pauseMs = 20;

/** How one end's connection was left. */
export interface EndOfExchange {
  /** The other end had finished. */
  readonly isClean: boolean;
  readonly error: string | undefined;
  readonly sent: string;
  readonly received: string;
}

/**
 * Numbered blocks both ways over two connections that are to be one: as fast as it goes up to a goal, and slowly from there
 * on, until told to finish. What was sent and what arrived is summed up by SHA-256.
 */
export class Exchange {
  readonly near: ExchangeEnd;
  readonly far: ExchangeEnd;

  constructor(near: Socket, far: Socket) {
    this.near = new ExchangeEnd(near);
    this.far = new ExchangeEnd(far);
  }

  /** Bytes that have arrived at each end. */
  get arrived(): { readonly near: number; readonly far: number } {
    return { near: this.near.arrivedBytes, far: this.far.arrivedBytes };
  }

  /** Resolves when at least so many bytes have arrived at both ends; rejects when one of them is gone before. */
  async reach(bytes: number): Promise<void> {
    const ends = [this.near, this.far];
    for (const end of ends) end.send(bytes);
    await Promise.all(ends.map((end) => end.reach(bytes)));
  }

  /** Resolves when something more has arrived at both ends. */
  async goOn(): Promise<void> {
    const ends = [this.near, this.far];
    await Promise.all(ends.map((end) => end.reach(end.arrivedBytes + 1)));
  }

  /** Has both ends finish, and waits until both are closed. */
  async finish(): Promise<{ readonly near: EndOfExchange; readonly far: EndOfExchange }> {
    this.near.finish();
    this.far.finish();
    return this.ended();
  }

  async ended(): Promise<{ readonly near: EndOfExchange; readonly far: EndOfExchange }> {
    const [near, far] = await Promise.all([this.near.ended, this.far.ended]);
    return { near, far };
  }

  destroy(): void {
    this.near.destroy();
    this.far.destroy();
  }
}

class ExchangeEnd {
  arrivedBytes = 0;
  readonly ended: Promise<EndOfExchange>;
  readonly #socket: Socket;
  readonly #sent = createHash('sha256');
  readonly #waiting = new Set<() => void>();
  #goalBytes = 0;
  #isFinishing = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const received = createHash('sha256');
    let isClean = false;
    let error: string | undefined;
    socket.on('error', (thrown: NodeJS.ErrnoException) => (error = thrown.code));
    socket.once('end', () => (isClean = true));
    socket.on('data', (chunk: Buffer) => {
      received.update(chunk);
      this.arrivedBytes += chunk.length;
      this.#wake();
    });
    this.ended = new Promise((resolve) => {
      socket.once('close', () => {
        this.#wake();
        const digests = { sent: this.#sent.digest('hex'), received: received.digest('hex') };
        resolve({ isClean, error, ...digests });
      });
    });
    void this.#write();
  }

  send(bytes: number): void {
    this.#goalBytes = bytes;
  }

  async reach(bytes: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const check = (): void => {
        if (this.arrivedBytes >= bytes) resolve();
        else if (this.#socket.destroyed) reject(new Error(`gone after ${this.arrivedBytes} bytes`));
        else return;
        this.#waiting.delete(check);
      };
      this.#waiting.add(check);
      check();
    });
  }

  finish(): void {
    this.#isFinishing = true;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  async #write(): Promise<void> {
    const socket = this.#socket;
    let sentBytes = 0;
    for (let number = 0; !this.#isFinishing && !socket.destroyed; number++) {
      const isSlow = sentBytes >= this.#goalBytes;
      const chunk = Buffer.from(isSlow ? block.subarray(0, slowBytes) : block);
      chunk.writeUInt32BE(number, 0);
      this.#sent.update(chunk);
      if (!socket.write(chunk)) {
        await Promise.race([once(socket, 'drain').catch(() => undefined), this.ended]);
      }
      sentBytes += chunk.length;
      if (isSlow) await delay(pauseMs);
    }
    socket.end();
  }

  #wake(): void {
    for (const check of [...this.#waiting]) check();
  }
}
