import { accessSync, constants } from 'node:fs';
import { RunningProgram } from './program.ts';

const script = '/usr/bin/script'; // util-linux

/** Why no terminal can be had here; undefined where one can. */
export const terminalMissing = ((): string | undefined => {
  try {
    accessSync(script, constants.X_OK);
    return process.platform === 'linux' ? undefined : 'only tried on Linux';
  } catch {
    return `${script} is not installed`;
  }
})();

/** One program on a pseudo-terminal of its own, as a person would run it. */
export class Terminal {
  readonly program: RunningProgram;
  /** All that it has shown, prompts included. */
  shown = '';
  readonly #waiting = new Set<() => void>();

  constructor(file: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    const command = [file, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
    this.program = new RunningProgram(script, ['-qefc', `exec ${command}`, '/dev/null'], {
      env: { ...env, ZTNA_NO_INPUT: '0', SHELL: '/bin/sh' },
    });
    this.program.child.stdout.on('data', (chunk: Buffer) => {
      this.shown += chunk.toString();
      for (const check of [...this.#waiting]) check();
    });
    void this.program.ended.then(() => {
      for (const check of [...this.#waiting]) check();
    });
  }

  /** Waits until something was shown that matches, from that character on; answers where it ends. */
  async show(pattern: RegExp, from = 0, timeoutMs = 30_000): Promise<number> {
    return new Promise((resolve, reject) => {
      const check = (): void => {
        const found = pattern.exec(this.shown.slice(from));
        const isOver = this.program.child.exitCode !== null;
        if (!found && !isOver) return;
        clearTimeout(timer);
        this.#waiting.delete(check);
        if (found) resolve(from + found.index + found[0].length);
        else reject(new Error(`it ended before ${String(pattern)}:\n${this.shown}`));
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(check);
        reject(new Error(`${timeoutMs} ms passed before ${String(pattern)}:\n${this.shown}`));
      }, timeoutMs);
      this.#waiting.add(check);
      check();
    });
  }

  /** Types; `\r` is the return key, `\x03` Ctrl-C, `\x04` Ctrl-D. */
  type(keys: string): void {
    this.program.child.stdin.write(keys);
  }
}
