import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { inPlace } from '../support/program.ts';

interface Pending {
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Answer {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: string;
}

/** A process of the harness in a place of its own, asked by lines of JSON; it ends with this one, however that ends. */
export class Worker {
  readonly child: ChildProcess;
  readonly #file: string;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #nextId = 1;
  #hasEnded = false;

  constructor(file: string, place: string | undefined) {
    this.#file = file;
    const script = fileURLToPath(new URL(file, import.meta.url));
    this.child = spawn(...inPlace(place, process.execPath, [script]), {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdin?.on('error', () => undefined);
    const { stdout } = this.child;
    if (stdout)
      createInterface({ input: stdout }).on('line', (line) => {
        const { id, answer, error } = JSON.parse(line) as Answer;
        const pending = this.#pending.get(id);
        this.#pending.delete(id);
        if (error === undefined) pending?.resolve(answer);
        else pending?.reject(new Error(`${file}: ${error}`));
      });
    this.#ended = new Promise((resolve) => {
      this.child.once('close', () => {
        this.#hasEnded = true;
        for (const { reject } of this.#pending.values()) reject(new Error(`${file} has ended`));
        resolve();
      });
    });
  }

  async ask<T>(command: string, details: Readonly<Record<string, unknown>> = {}): Promise<T> {
    if (this.#hasEnded) throw new Error(`${this.#file} has ended`);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      this.child.stdin?.write(`${JSON.stringify({ id, do: command, ...details })}\n`);
    });
  }

  async stop(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }
}
