import * as v from 'valibot';
import { fullJitterDelayMs } from '../../../protocol/host/index.ts';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { SignalEffects } from './effects.ts';
import { maxBackoffMs, maxPolledTokens, pollLeaseMs } from './limits.ts';
import { fetchOutside } from './outside-fetch.ts';
import { receiveSet, type ReceivedStream } from './receive.ts';
import { refuseSet, setFaultOf, type SetFault } from './set.ts';
import { noteFailure } from './streams.ts';
import type { ReceiveSettings } from '../../signal-settings.ts';

export interface PolledStream extends ReceivedStream {
  readonly poll: NonNullable<ReceiveSettings['poll']>;
  readonly authorization: string;
  readonly ca: string | null;
}

/** An answer of RFC 8936, section 2.3. */
const answerSchema = v.object({
  sets: v.record(v.string(), v.string()),
  moreAvailable: v.optional(v.boolean(), false),
});

interface Refusal {
  readonly err: SetFault;
  readonly description: string;
}

/** What the transmitter is still to be told of tokens that it gave us. */
interface Pending {
  readonly ack: string[];
  readonly setErrs: Record<string, Refusal>;
}

/**
 * Asks a transmitter for its tokens (RFC 8936), one control plane at a time: at once while there are more, else every
 * so often; after a failure ever later, with jitter. A token is acknowledged once its event is durable. What was not
 * acknowledged when this ends comes again, and is known then.
 */
export function startPoller(
  services: Services,
  effects: SignalEffects,
  stream: PolledStream,
): { stop(): Promise<void> } {
  const { logger } = services;
  const { name } = stream.settings;
  const ending = new AbortController();
  let pending: Pending = { ack: [], setErrs: {} };
  let failures = 0;
  let maxEvents = maxPolledTokens;

  /** One request and what follows from its answer; true when there is more to ask for or to tell. */
  const turn = async (): Promise<boolean> => {
    const told = pending;
    const { url, allowPrivate } = stream.poll;
    const answer = await fetchOutside({
      url,
      method: 'POST',
      headers: {
        authorization: stream.authorization,
        'content-type': 'application/json',
        accept: 'application/json',
      },
      body: JSON.stringify({
        maxEvents,
        returnImmediately: true,
        ack: told.ack,
        ...(Object.keys(told.setErrs).length > 0 ? { setErrs: told.setErrs } : {}),
      }),
      allowPrivate,
      ca: stream.ca,
      signal: ending.signal,
    });
    const { sets, moreAvailable } = readAnswer(answer.status, answer.text);
    pending = { ack: [], setErrs: {} };
    const tokens = Object.entries(sets).slice(0, maxPolledTokens);
    for (const [jti, token] of tokens) {
      if (ending.signal.aborted) return false;
      await take(jti, token);
    }
    maxEvents = maxPolledTokens;
    return moreAvailable || tokens.length > 0;
  };

  const take = async (jti: string, token: string): Promise<void> => {
    try {
      const receipt = await receiveSet(services, effects, stream, token);
      if (receipt.jti !== jti) throw refuseSet('invalid_request', 'its jti is another');
      pending.ack.push(jti);
    } catch (error) {
      const fault = setFaultOf(error);
      if (fault === undefined) throw error; // it comes again
      const { message } = toZtnaError(error);
      pending.setErrs[jti] = { err: fault, description: message.slice(0, 200) };
      await services.refusals.record(`poll:${name}`, {
        actor: `signal:${name}`,
        action: 'signal.receive',
        subject: name,
        details: { reason: fault, error: message, jti },
      });
      await noteFailure(services, name, `${fault}: ${message}`);
    }
  };

  const run = async (): Promise<void> => {
    while (!ending.signal.aborted) {
      let waitMs = stream.poll.everyMs;
      try {
        if (await leadPolling(services, name)) {
          if (await turn()) waitMs = 0;
          failures = 0;
        } else {
          pending = { ack: [], setErrs: {} }; // another one has them now
          waitMs = Math.min(waitMs, pollLeaseMs / 2);
        }
      } catch (error) {
        if (isEnding()) break;
        const failure = toZtnaError(error);
        if (failure.reason === 'outside_too_large') maxEvents = 1;
        waitMs = 250 + fullJitterDelayMs(failures++, { baseMs: 1_000, capMs: maxBackoffMs });
        const { code, message, reason = null } = failure;
        logger.warn('signal_poll_failed', { stream: name, code, reason, error: message });
        await noteFailure(services, name, message, false).catch(() => undefined);
      }
      await pause(waitMs, ending.signal);
    }
  };
  const isEnding = () => ending.signal.aborted;

  const running = run();
  return {
    stop: async () => {
      ending.abort();
      await running;
      await leavePolling(services, name).catch(() => undefined);
    },
  };
}

function readAnswer(status: number, text: string): v.InferOutput<typeof answerSchema> {
  let json: unknown;
  try {
    if (status === 200) json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  const parsed = v.safeParse(answerSchema, json);
  if (parsed.success) return parsed.output;
  throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message:
      status === 200
        ? 'the transmitter answered what is no list of tokens'
        : `the transmitter answered ${status}`,
    reason: 'signal_poll_refused',
  });
}

/** True when this control plane is the one that asks: nobody else did a short while ago. */
export async function leadPolling(
  { store, clock, self }: Pick<Services, 'store' | 'clock' | 'self'>,
  name: string,
): Promise<boolean> {
  const nowMs = clock.nowMs();
  const taken = await store.write((tx) =>
    tx
      .updateTable('signalStreams')
      .set({ poller: self.id, pollUntilMs: nowMs + pollLeaseMs })
      .where('name', '=', name)
      .where((eb) => eb.or([eb('poller', '=', self.id), eb('pollUntilMs', '<=', nowMs)]))
      .returning('name')
      .execute(),
  );
  return taken.length > 0;
}

async function leavePolling(
  { store, self }: Pick<Services, 'store' | 'self'>,
  name: string,
): Promise<void> {
  await store.write((tx) =>
    tx
      .updateTable('signalStreams')
      .set({ pollUntilMs: 0 })
      .where('name', '=', name)
      .where('poller', '=', self.id)
      .execute(),
  );
}

/** Waits so long, or until `signal` aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
