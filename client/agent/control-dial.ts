import type { TLSSocket } from 'node:tls';
import { errorRow, toZtnaError, type ZtnaError } from '../../protocol/index.ts';
import {
  dialFirst,
  dialForWebSocket,
  type DialOptions,
  type Logger,
} from '../../protocol/host/index.ts';
import { isLastWord } from './last-word.ts';
import type { RelayBook } from './relay-book.ts';

export interface ControlDialOptions<C> {
  /** Relays that may hand on to a control plane, the preferred one first. */
  readonly urls: readonly string[];
  readonly book: RelayBook;
  readonly dial: (url: string) => DialOptions;
  /** Opens the channel on a connection. */
  readonly open: (url: string, socket: TLSSocket) => Promise<C>;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/**
 * Opens a control channel by the first relay where that succeeds: one whose keys do not bear out what it says is passed
 * over like one that is down. Throws what no other can mend, else the first failure that another attempt will not mend
 * either, else the last one.
 */
export async function dialControl<C>(
  options: ControlDialOptions<C>,
): Promise<{ readonly url: string; readonly channel: C }> {
  const { book, open, signal } = options;
  const urls = [...options.urls];
  let worst: ZtnaError | undefined;
  for (;;) {
    const { url, socket } = await connectFirst(urls, options).catch((error: unknown) => {
      throw worst ?? error;
    });
    try {
      return { url, channel: await open(url, socket) };
    } catch (thrown) {
      const error = toZtnaError(thrown);
      book.noteFailed(url);
      urls.splice(urls.indexOf(url), 1);
      if (isLastWord(error) || signal.aborted) throw error;
      if (errorRow(error.code).retry !== 'backoff') worst ??= error;
      if (urls.length === 0) throw worst ?? error;
    }
  }
}

/** A connection to the first relay that takes one for the control plane. Throws what the preferred one failed with. */
async function connectFirst<C>(
  urls: readonly string[],
  { book, dial, logger, signal }: ControlDialOptions<C>,
): Promise<{ readonly url: string; readonly socket: TLSSocket }> {
  const { candidate, connection } = await dialFirst({
    candidates: urls,
    dial: async (url, attempt) => {
      const socket = await dialForWebSocket({ ...dial(url), signal: attempt });
      book.noteAnswered(url); // how long it took says how far the control plane is
      return socket;
    },
    discard: (socket) => socket.destroy(),
    onFailed: (url, { code, reason }) => {
      book.noteFailed(url);
      logger.info('relay_unreachable', { url, code, reason });
    },
    signal,
  });
  return { url: candidate, socket: connection };
}
