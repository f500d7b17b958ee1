import * as v from 'valibot';
import type { RawData, WebSocket } from 'ws';
import { toZtnaError, ZtnaError } from '../errors.ts';
import { decodeMessage, encodeMessage, maxMessageBytes } from '../message.ts';
import { aborted, closeError } from './web-socket-close.ts';

const welcomeWithinMs = 5_000;

export type WelcomeOf<In> = Extract<In, { readonly type: 'welcome' }>;

export interface Greeting<In, Out> {
  readonly fromSchema: v.GenericSchema<unknown, Out>;
  readonly toSchema: v.GenericSchema<unknown, In>;
  readonly hello: unknown;
  /** Messages that go out with hello. Whatever they are answered with comes behind the welcome. */
  readonly behind: readonly unknown[];
  readonly signal: AbortSignal;
}

/** A control message as it came. Throws ERR_MESSAGE_MALFORMED for a binary one, and as `decodeMessage`. */
export function readMessage<In>(
  schema: v.GenericSchema<unknown, In>,
  data: RawData,
  isBinary: boolean,
): In {
  if (isBinary || !Buffer.isBuffer(data)) throw new ZtnaError('ERR_MESSAGE_MALFORMED');
  return decodeMessage(schema, data, maxMessageBytes);
}

/** Sends hello, with what goes behind it, and awaits the welcome, which must be the first message. Throws why there was none. */
export async function greet<In extends { readonly type: string }, Out, T>(
  ws: WebSocket,
  options: Greeting<In, Out>,
  onWelcome: (welcome: WelcomeOf<In>) => T,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const settle = () => {
      clearTimeout(timer);
      ws.off('message', onMessage);
      ws.off('close', onClose);
      options.signal.removeEventListener('abort', onAbort);
    };
    const fail = (error: ZtnaError) => {
      settle();
      reject(error);
    };
    const onClose = (code: number, text: Buffer) => {
      fail(closeError(code, text.toString()));
    };
    const onAbort = () => {
      fail(aborted(options.signal));
    };
    const onMessage = (data: RawData, isBinary: boolean) => {
      try {
        const message = readMessage(options.toSchema, data, isBinary);
        if (message.type !== 'welcome') throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
        refuseOtherVersion(options.hello, message);
        settle();
        resolve(onWelcome(message as WelcomeOf<In>)); // In this very turn: the next message is the caller's.
      } catch (error) {
        fail(toZtnaError(error));
      }
    };
    const timer = setTimeout(() => {
      fail(new ZtnaError('ERR_HANDSHAKE_TIMEOUT', { hop: 'relay', reason: 'welcome_timeout' }));
    }, welcomeWithinMs);
    options.signal.addEventListener('abort', onAbort, { once: true });
    ws.on('close', onClose);
    ws.on('message', onMessage);
    for (const message of [options.hello, ...options.behind]) {
      ws.send(encodeMessage(options.fromSchema, message));
    }
    if (options.signal.aborted) onAbort();
  });
}

const versionsSchema = v.object({ versions: v.object({ min: v.number(), max: v.number() }) });
const versionSchema = v.object({ version: v.number() });

function refuseOtherVersion(hello: unknown, welcome: unknown): void {
  const offered = v.safeParse(versionsSchema, hello);
  const chosen = v.safeParse(versionSchema, welcome);
  if (!offered.success || !chosen.success) return;
  const { min, max } = offered.output.versions;
  if (chosen.output.version < min || chosen.output.version > max) {
    throw new ZtnaError('ERR_HANDSHAKE_VERSION', { hop: 'relay' });
  }
}
