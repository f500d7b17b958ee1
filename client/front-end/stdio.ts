import {
  ZtnaError,
  type ErrorCode,
  type Hop,
  type ResetCode,
  type TunnelStream,
} from '../../protocol/index.ts';
import type { ClosableOutput } from './stdio-output.ts';

/** What a reset stream means to a command whose only connection it was. */
const resetErrors: Readonly<Record<ResetCode, readonly [code: ErrorCode, hop: Hop, hint: string]>> =
  {
    refused: ['ERR_STREAM_REFUSED', 'app', 'the app is down: tell whoever runs it'],
    unreachable: ['ERR_STREAM_UNREACHABLE', 'app', 'the app is down: tell whoever runs it'],
    reset: ['ERR_STREAM_RESET', 'app', 'the app cut the connection: try again'],
    limit: ['ERR_LIMIT_STREAMS', 'connector', 'try again in a moment'],
    overrun: ['ERR_STREAM_RESET', 'connector', 'try again'],
    internal: ['ERR_STREAM_RESET', 'connector', 'try again; if it stays, tell your administrator'],
    closed: ['ERR_TUNNEL_CLOSED', 'network', 'try again'],
  };

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
      const [error, hop, hint] = resetErrors[code];
      reject(new ZtnaError(error, { hop, hint, reason: code }));
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
