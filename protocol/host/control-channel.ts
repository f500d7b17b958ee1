import { randomBytes } from 'node:crypto';
import type * as v from 'valibot';
import type { RawData, WebSocket } from 'ws';
import { verifyBundle, type Bundle } from '../bundle.ts';
import type { LocalClocks } from '../control-time.ts';
import { toZtnaError, ZtnaError } from '../errors.ts';
import { encodeMessage } from '../message.ts';
import type { refusal, timeAnswer } from '../messages/channel.ts';
import { channelPath } from '../messages/data.ts';
import { greet, readMessage, type WelcomeOf } from './channel-greeting.ts';
import type { ControlClock } from './clock.ts';
import { watchConnection } from './connection-watch.ts';
import { dialWebSocket, type DialOptions } from './dial.ts';
import type { Logger } from './log.ts';
import { startLiveness } from './liveness.ts';
import type { NetworkWatch } from './network-watch.ts';
import { aborted, closeError, closeSoon, closeWith, giveUp } from './web-socket-close.ts';

export type { WelcomeOf } from './channel-greeting.ts';

const timeEveryMs = 5_000;

/** A control plane that answers pings but not this for so long is not a working one. */
const timeWithinMs = 15_000;

const requestWithinMs = 15_000;

/** A peer that takes nothing for so long that this much waits is a lost one. */
const maxUnsentBytes = 4 * 1_048_576;

/** Messages that may come before the opener has the channel in hand. */
const maxEarlyMessages = 1_024;

interface ChannelMessage {
  readonly type: string;
}

type Without<M, K extends PropertyKey> = M extends unknown ? Omit<M, K> : never;

/** A message that asks for an answer, without the `id` that the channel gives it. */
export type RequestOf<Out> = Without<Extract<Out, { readonly id: number }>, 'id'>;

/** What a request may be answered with; a refusal is thrown. */
export type AnswerOf<In> = Exclude<
  Extract<In, { readonly id: number }>,
  { readonly type: 'refusal' }
>;

export interface ControlChannelOptions<In extends ChannelMessage, Out extends ChannelMessage> {
  readonly dial: DialOptions;
  /** What we send: `fromDevice`, `fromConnector` or `fromRelay`. */
  readonly fromSchema: v.GenericSchema<unknown, Out>;
  /** What we receive: `toDevice`, `toConnector` or `toRelay`. */
  readonly toSchema: v.GenericSchema<unknown, In>;
  readonly hello: Extract<Out, { readonly type: 'hello' }>;
  /** Asked right behind hello, which saves their round trip; the answers are in `answers`. */
  readonly requests?: readonly RequestOf<Out>[];
  readonly clock: ControlClock;
  /** The newest bundle known to the caller. */
  readonly bundle: () => Bundle;
  /**
   * Everything that is not upkeep or an answer: leases and log entries too, raw. First called after `open` resolved.
   * An error it throws closes the channel with that error's code.
   */
  readonly onMessage: (message: In) => void;
  /** A newer bundle, verified; the caller keeps it. */
  readonly onBundle?: (bundle: Bundle) => void;
  readonly logger: Logger;
  /** What tells of sleep and other addresses; by default this machine's. */
  readonly network?: NetworkWatch;
  /** Closes the channel when it aborts. */
  readonly signal: AbortSignal;
}

interface Pending<In> {
  readonly resolve: (answer: AnswerOf<In>) => void;
  readonly reject: (error: ZtnaError) => void;
}

/** A question for the time that was sent, and when. */
interface TimeExchange {
  readonly nonce: string;
  readonly sentAt: LocalClocks;
}

/**
 * One control WebSocket and its upkeep: hello and welcome, liveness, the time exchange, requests and newer bundles.
 *
 *   dial ─▶ hello, time, requests ─▶ welcome ─▶ first time answer ─▶ open ─▶ closed (once, for good)
 */
export class ControlChannel<In extends ChannelMessage, Out extends ChannelMessage> {
  /** What the control plane greeted us with. */
  readonly welcome: WelcomeOf<In>;
  /** Resolves, never rejects, once the channel is closed, with why. */
  readonly closed: Promise<ZtnaError>;
  /** What the first requests are answered with, each as by `request`. */
  readonly answers: readonly Promise<AnswerOf<In>>[];

  readonly #ws: WebSocket;
  readonly #options: ControlChannelOptions<In, Out>;
  readonly #pending = new Map<number, Pending<In>>();
  readonly #timeKnown = Promise.withResolvers<undefined>();
  #nextId = 1;
  #bundle: Bundle;
  #exchange: TimeExchange | undefined;
  #early: In[] | undefined = [];
  #failure: ZtnaError | undefined;

  /**
   * Dials and greets; resolves once the control plane has welcomed us and told the time. Throws as `dialWebSocket`,
   * ERR_HANDSHAKE_TIMEOUT, ERR_HANDSHAKE_VERSION, or what the control plane closed it with.
   */
  static async open<In extends ChannelMessage, Out extends ChannelMessage>(
    options: ControlChannelOptions<In, Out>,
  ): Promise<ControlChannel<In, Out>> {
    const { dial, signal } = options;
    const ws = await dialWebSocket({ ...dial, signal: dial.signal ?? signal, path: channelPath });
    const exchange = newExchange(options.clock);
    const requests = (options.requests ?? []).map((message, i) => ({ ...message, id: i + 1 }));
    const channel = await greet(
      ws,
      { ...options, behind: [timeQuestion(exchange), ...requests] },
      (welcome) => new ControlChannel<In, Out>(ws, options, welcome, exchange),
    ).catch((error: unknown) => {
      closeWith(ws, error);
      throw error;
    });
    await Promise.race([
      channel.#timeKnown.promise,
      channel.closed.then((error) => Promise.reject(error)),
    ]);
    setImmediate(() => {
      channel.#deliverEarly();
    });
    return channel;
  }

  /** Only `open` makes one, after the welcome. */
  constructor(
    ws: WebSocket,
    options: ControlChannelOptions<In, Out>,
    welcome: WelcomeOf<In>,
    exchange: TimeExchange,
  ) {
    this.#ws = ws;
    this.#options = options;
    this.#exchange = exchange;
    this.answers = (options.requests ?? []).map(() => this.#answerTo(this.#nextId++));
    for (const answer of this.answers) answer.catch(() => undefined); // whoever asked may have gone
    this.#bundle = options.bundle();
    this.welcome = welcome;
    const closed = Promise.withResolvers<ZtnaError>();
    this.closed = closed.promise;

    // Said, not just cut, where the other way still works: whoever says so is alive, and will be back.
    const stopLiveness = startLiveness(ws, (error) => {
      this.#failure ??= error;
      giveUp(ws, error);
    });
    const stopWatching = watchConnection(
      ws,
      (error) => {
        this.#failure ??= error;
        options.logger.info('channel_lost_with_network', { reason: error.reason });
        giveUp(ws, error);
      },
      options.network && { network: options.network },
    );
    const onMessage = (data: RawData, isBinary: boolean) => {
      this.#receive(data, isBinary);
    };
    const onAbort = () => {
      this.#failure ??= aborted(options.signal);
      closeWith(ws, undefined);
    };
    const timer = setInterval(() => {
      this.#keepTime();
    }, timeEveryMs);
    ws.on('message', onMessage);
    ws.once('close', (code, text) => {
      ws.off('message', onMessage);
      clearInterval(timer);
      stopLiveness();
      stopWatching();
      options.signal.removeEventListener('abort', onAbort);
      const error = this.#failure ?? closeError(code, text.toString());
      this.#failure = error;
      for (const { reject } of this.#pending.values()) reject(error);
      this.#pending.clear();
      closed.resolve(error);
    });
    options.signal.addEventListener('abort', onAbort, { once: true });
    if (options.signal.aborted) onAbort();
    if ('bundle' in welcome && typeof welcome.bundle === 'string') {
      this.#guard(() => {
        this.#learnBundle(welcome.bundle as string);
      });
    }
  }

  /** Why it is closed, or closing; undefined while it is open. */
  get failure(): ZtnaError | undefined {
    return this.#failure;
  }

  /** Sends a message. One for a closed channel is dropped: `closed` has said so already. */
  send(message: Out): void {
    if (this.#failure || this.#ws.readyState !== this.#ws.OPEN) return;
    if (this.#ws.bufferedAmount > maxUnsentBytes) {
      this.#fail(
        new ZtnaError('ERR_RELAY_UNREACHABLE', { hop: 'network', reason: 'channel_clogged' }),
      );
      return;
    }
    this.#ws.send(encodeMessage(this.#options.fromSchema, message));
  }

  /**
   * Asks and awaits the answer with the same id. Throws the refusal's code with its message, fix (as hint) and ref;
   * ERR_RELAY_UNAVAILABLE when no answer came in time; or why the channel closed.
   */
  async request(message: RequestOf<Out>, timeoutMs = requestWithinMs): Promise<AnswerOf<In>> {
    if (this.#failure) throw this.#failure;
    const id = this.#nextId++;
    const answer = this.#answerTo(id, timeoutMs);
    this.send({ ...message, id } as unknown as Out);
    return answer;
  }

  /** What will come for request `id`. */
  #answerTo(id: number, timeoutMs = requestWithinMs): Promise<AnswerOf<In>> {
    return new Promise<AnswerOf<In>>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(
          new ZtnaError('ERR_RELAY_UNAVAILABLE', {
            message: 'the relay did not answer in time',
            hint: 'try again in a moment',
            hop: 'relay',
            reason: 'request_timeout',
          }),
        );
      }, timeoutMs);
      this.#pending.set(id, {
        resolve: (answer) => {
          clearTimeout(timer);
          resolve(answer);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  /** Closes the channel, politely at first. Harmless when it is closed already. */
  close(closeCode = 1_000, text = ''): void {
    this.#failure ??= new ZtnaError('ERR_TUNNEL_CLOSED', {
      message: 'the control channel was closed here',
      reason: 'closed_here',
    });
    closeSoon(this.#ws, closeCode, text);
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#failure) return;
    this.#guard(() => {
      this.#handle(readMessage(this.#options.toSchema, data, isBinary));
    });
  }

  #handle(message: In): void {
    switch (message.type) {
      case 'welcome':
        throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
      case 'time':
        this.#learnTime(message as unknown as v.InferOutput<typeof timeAnswer>);
        return;
      case 'bundle':
        this.#learnBundle((message as unknown as { statement: string }).statement);
        return;
      default:
        if ('id' in message && typeof message.id === 'number') this.#answer(message, message.id);
        else if (this.#early) this.#keepEarly(message);
        else this.#options.onMessage(message);
    }
  }

  #answer(message: In, id: number): void {
    if (id >= this.#nextId) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
    const pending = this.#pending.get(id);
    if (!pending) return; // It came after its time was up.
    this.#pending.delete(id);
    if (message.type === 'refusal') {
      const { code, message: text, fix, ref } = message as unknown as Refusal;
      pending.reject(
        new ZtnaError(code, {
          hop: 'relay',
          ...(text === null ? {} : { message: text }),
          ...(fix === null ? {} : { hint: fix }),
          ...(ref === null ? {} : { ref }),
        }),
      );
    } else {
      pending.resolve(message as unknown as AnswerOf<In>);
    }
  }

  /** One exchange at a time: a second nonce would make the answer to the first look forged. */
  #keepTime(): void {
    const askedAtMs = this.#exchange?.sentAt.monotonicMs;
    if (askedAtMs === undefined) {
      this.#askTime();
    } else if (this.#options.clock.readClocks().monotonicMs - askedAtMs > timeWithinMs) {
      this.#fail(new ZtnaError('ERR_RELAY_UNAVAILABLE', { hop: 'relay', reason: 'time_silent' }));
    }
  }

  #askTime(): void {
    this.#exchange = newExchange(this.#options.clock);
    this.send(timeQuestion(this.#exchange) as unknown as Out);
  }

  #learnTime({ statement }: v.InferOutput<typeof timeAnswer>): void {
    const exchange = this.#exchange;
    if (!exchange) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
    this.#exchange = undefined;
    const { clock, logger } = this.#options;
    const receivedAt = clock.readClocks();
    if (!clock.learn(statement, { ...exchange, receivedAt }, this.#bundle.grantKeys)) {
      logger.warn('time_exchange_slow');
      if (clock.nowMs() === undefined) this.#askTime();
    }
    if (clock.nowMs() !== undefined) this.#timeKnown.resolve(undefined);
  }

  #learnBundle(statement: string): void {
    const { clock, logger, onBundle } = this.#options;
    const { rootId, version } = this.#bundle;
    const bundle = verifyBundle(
      statement,
      { rootId, minVersion: version },
      clock.nowMs() ?? Date.now(),
    );
    if (bundle.version === version) return;
    this.#bundle = bundle;
    logger.info('bundle_learned', { version: bundle.version });
    onBundle?.(bundle);
  }

  #keepEarly(message: In): void {
    if (!this.#early) return;
    if (this.#early.length >= maxEarlyMessages) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
    this.#early.push(message);
  }

  #deliverEarly(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) {
      if (this.#failure) return;
      this.#guard(() => {
        this.#options.onMessage(message);
      });
    }
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(toZtnaError(error));
    }
  }

  #fail(error: ZtnaError): void {
    if (this.#failure) return;
    this.#failure = error;
    this.#options.logger.warn('channel_failed', { code: error.code, reason: error.reason });
    closeWith(this.#ws, error);
  }
}

function newExchange(clock: ControlClock): TimeExchange {
  return { nonce: randomBytes(16).toString('base64url'), sentAt: clock.readClocks() };
}

function timeQuestion({ nonce }: TimeExchange): { readonly type: 'time'; readonly nonce: string } {
  return { type: 'time', nonce };
}

type Refusal = v.InferOutput<typeof refusal>;
