import { ZtnaError, type TunnelStream } from '../../protocol/index.ts';
import { explainReset } from './reset-error.ts';
import type { ClosableOutput } from './stdio-output.ts';

/**
 * Carries one stream on standard input and output. The end of input completes our direction, the app's end ends
 * output; resolves when both are complete. Throws for a reset: what came was written, but it was not all.
 */
export async function carryStdio(
  stream: TunnelStream,
  input: NodeJS.ReadableStream,
  output: ClosableOutput,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  let isInputOver = false;
  let isOutputOver = false;
  const settle = (): void => {
    if (isInputOver && isOutputOver) resolve(undefined);
  };
  const fail = (cause: unknown): void => {
    stream.reset('reset');
    reject(new ZtnaError('ERR_STREAM_RESET', { hop: 'client', reason: 'stdio_failed', cause }));
  };
  const onInput = (chunk: Buffer): void => {
    if (!stream.isOver && !stream.write(chunk)) input.pause();
  };
  const onInputEnd = (): void => {
    isInputOver = true;
    stream.end();
    settle();
  };
  stream.attach({
    onData: (chunk) => {
      output.stream.write(chunk, (error) => {
        if (!error) stream.consumed(chunk.length);
      });
    },
    onEnd: () => {
      output.end(() => {
        isOutputOver = true;
        settle();
      });
    },
    onReset: (code) => {
      reject(explainReset(code));
    },
    onWritable: () => {
      input.resume();
    },
  });
  output.stream.on('error', fail); // whoever read our output has gone
  input.on('error', fail);
  input.on('data', onInput);
  input.once('end', onInputEnd);
  try {
    await promise;
  } finally {
    input.off('data', onInput);
    input.off('end', onInputEnd);
    input.pause();
  }
}
