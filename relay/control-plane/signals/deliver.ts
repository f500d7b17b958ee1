import { createHmac } from 'node:crypto';
import pRetry from 'p-retry';
import { fullJitterDelayMs } from '../../../protocol/host/index.ts';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Reader, SignalOutboxTable, Tx } from '../store/index.ts';
import {
  deliveryLeaseMs,
  maxAttempts,
  maxBackoffMs,
  maxDeliveries,
  quickRetries,
} from './limits.ts';
import { fetchOutside } from './outside-fetch.ts';
import { setTarget, webhookTarget } from './outbox.ts';
import type { TransmitSettings, WebhookSettings } from '../../signal-settings.ts';
import { signSet, type SetClaims, type TransmitterKey } from './transmitter-key.ts';

export type Letter = SignalOutboxTable;

/** A receiver, with the secrets that its files hold. */
export type Target =
  | {
      readonly kind: 'set';
      readonly settings: TransmitSettings;
      readonly authorization: string | null;
      readonly ca: string | null;
      readonly key: TransmitterKey;
    }
  | {
      readonly kind: 'webhook';
      readonly settings: WebhookSettings;
      readonly secret: string;
      readonly ca: string | null;
    };

/** As the outbox calls it. */
export function targetName({ kind, settings }: Target): string {
  return kind === 'set' ? setTarget(settings.name) : webhookTarget(settings.name);
}

/** `v1=` and HMAC-SHA256, in hex, over `timestamp.body`. */
export function webhookSignature(secret: string, timestamp: string, body: string): string {
  return `v1=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`;
}

/** Delivers what is due: each letter by one control plane at a time, oldest first. */
export class Deliverer {
  readonly #services: Services;
  readonly #targets: ReadonlyMap<string, Target>;
  readonly #ending = new AbortController();
  #isWanted = false;
  #running: Promise<void> | undefined;

  constructor(services: Services, targets: readonly Target[]) {
    this.#services = services;
    this.#targets = new Map(targets.map((target) => [targetName(target), target]));
  }

  /** Looks for what is due, after what is being looked at. */
  wake(): void {
    this.#isWanted = true;
    if (this.#ending.signal.aborted) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { logger } = this.#services;
    while (this.#isWanted && !this.#ending.signal.aborted) {
      this.#isWanted = false;
      try {
        const letters = await this.#claim();
        await Promise.all(letters.map((letter) => this.#deliver(letter)));
        if (letters.length > 0) this.#isWanted = true;
      } catch (error) {
        const { code, message, reason } = toZtnaError(error);
        if (reason !== 'store_unavailable') {
          logger.error('signal_delivery_failed', { code, error: message });
        }
        return; // the timer tries again
      }
    }
  }

  async #claim(): Promise<Letter[]> {
    const { store, clock } = this.#services;
    const nowMs = clock.nowMs();
    const targets = [...this.#targets.keys()];
    const due = (db: Reader | Tx) =>
      db
        .selectFrom('signalOutbox')
        .select('id')
        .where('dead', '=', 0)
        .where('nextAtMs', '<=', nowMs)
        .where('claimedUntilMs', '<=', nowMs)
        .where('target', 'in', targets)
        .orderBy('nextAtMs')
        .limit(maxDeliveries);
    if ((await due(store.db).execute()).length === 0) return []; // without a write, as nearly always
    return store.write((tx) =>
      tx
        .updateTable('signalOutbox')
        .set({ claimedUntilMs: nowMs + deliveryLeaseMs })
        .where('id', 'in', due(tx))
        .where('claimedUntilMs', '<=', nowMs) // another one may have been faster
        .returningAll()
        .execute(),
    );
  }

  async #deliver(letter: Letter): Promise<void> {
    const target = this.#targets.get(letter.target);
    if (!target) return;
    const { signal } = this.#ending;
    try {
      await pRetry(() => this.#send(letter, target), {
        retries: quickRetries,
        minTimeout: 200,
        maxTimeout: 2_000,
        randomize: true,
        signal,
        shouldRetry: ({ error }) => !isFinal(error),
      });
    } catch (error) {
      await this.#keep(letter, error, signal.aborted);
      return;
    }
    await this.#services.store.write((tx) =>
      tx.deleteFrom('signalOutbox').where('id', '=', letter.id).execute(),
    );
  }

  async #send(letter: Letter, target: Target): Promise<void> {
    const { settings, clock } = this.#services;
    const { url, allowPrivate } = target.settings;
    const { body, headers } =
      target.kind === 'set'
        ? {
            body: await signSet(target.key, JSON.parse(letter.bodyJson) as SetClaims, {
              issuer: settings.url,
              audience: target.settings.audience,
            }),
            headers: {
              'content-type': 'application/secevent+jwt',
              accept: 'application/json',
              ...(target.authorization === null ? {} : { authorization: target.authorization }),
            },
          }
        : webhookRequest(letter, target.secret, clock.nowMs());
    const { signal } = this.#ending;
    const answer = await fetchOutside({
      ...{ url, method: 'POST', headers, body, allowPrivate, signal },
      ca: target.ca,
    });
    if (answer.status >= 200 && answer.status < 300) return;
    throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
      message: `the receiver answered ${answer.status}${faultIn(answer.text)}`,
      reason: finalStatuses.includes(answer.status) ? 'outside_refused' : 'outside_failed',
    });
  }

  /** Notes a failure, and when the next attempt is. One that was broken off by our own end does not count. */
  async #keep(letter: Letter, error: unknown, isStopping: boolean): Promise<void> {
    const { store, clock, logger } = this.#services;
    const failure = toZtnaError(error);
    const attempts = letter.attempts + (isStopping ? 0 : 1);
    const isDead = !isStopping && (isFinal(failure) || attempts >= maxAttempts);
    const delayMs =
      1_000 + fullJitterDelayMs(letter.attempts, { baseMs: 2_000, capMs: maxBackoffMs });
    const nextAtMs = isStopping ? letter.nextAtMs : clock.nowMs() + delayMs;
    const lastError = failure.message.slice(0, 200);
    if (isDead) {
      logger.warn('signal_dead', { id: letter.id, target: letter.target, error: lastError });
    }
    await store.write((tx) =>
      tx
        .updateTable('signalOutbox')
        .set({ attempts, nextAtMs, claimedUntilMs: 0, lastError, dead: isDead ? 1 : 0 })
        .where('id', '=', letter.id)
        .execute(),
    );
  }
}

/** Answers that another attempt would only get again: the receiver has read it and will not have it. */
const finalStatuses: readonly number[] = [400, 410, 413, 415, 422];

function isFinal(error: unknown): boolean {
  return error instanceof ZtnaError && error.reason === 'outside_refused';
}

/** The word of RFC 8935 in an answer, if it is one. */
function faultIn(text: string): string {
  const match = /"err"\s*:\s*"([a-z_]{1,40})"/.exec(text.slice(0, 4_096));
  return match ? ` (${match[1] ?? ''})` : '';
}

function webhookRequest(letter: Letter, secret: string, nowMs: number) {
  const timestamp = String(Math.floor(nowMs / 1_000));
  return {
    body: letter.bodyJson,
    headers: {
      'content-type': 'application/json',
      'ztna-webhook-id': letter.id,
      'ztna-webhook-timestamp': timestamp,
      'ztna-webhook-signature': webhookSignature(secret, timestamp, letter.bodyJson),
    },
  };
}
