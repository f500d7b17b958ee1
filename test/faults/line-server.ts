import { createInterface } from 'node:readline';

type Json = Readonly<Record<string, unknown>>;

/**
 * The inner side of a `Worker`: answers each line of standard input, `{"id", "do", …}`, with a line `{"id", "answer"}` or
 * `{"id", "error"}`, in the order in which the work is done. Ends the process with standard input.
 */
export function serveLines(actions: Readonly<Record<string, (command: Json) => unknown>>): void {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const command = JSON.parse(line) as Json;
    const { id } = command;
    const tell = (outcome: Json): void => {
      process.stdout.write(`${JSON.stringify({ id, ...outcome })}\n`);
    };
    const action = actions[String(command['do'])];
    void Promise.resolve()
      .then(() => {
        if (!action) throw new Error(`nobody does ${String(command['do'])}`);
        return action(command);
      })
      .then(
        (answer) => tell({ answer: answer ?? null }),
        (error: unknown) => tell({ error: error instanceof Error ? error.message : String(error) }),
      );
  });
  lines.once('close', () => process.exit(0));
}
