import { randomBytes } from 'node:crypto';
import { isId, toZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { readMeta, writeMeta, type Reader, type Tx } from '../store/index.ts';
import { maxWaiting } from './limits.ts';
import {
  ownEventsOf,
  toldActions,
  toSetClaims,
  toWebhookBody,
  type OwnEvent,
} from './own-event.ts';
import type { SignalSettings } from '../../signal-settings.ts';

/** Audit records looked at in one transaction. */
const recordsAtOnce = 256;

/** As targets are called in the outbox. */
export const setTarget = (name: string) => `set ${name}`;
export const webhookTarget = (name: string) => `webhook ${name}`;

const cursorKey = (writer: string) => `signal_cursor:${writer}`;

/** An id that says what it is: of a token, a webhook call, a letter of the outbox. */
export function newLetterId(): string {
  return `sig_${randomBytes(13).toString('hex')}`;
}

/**
 * Fills the outbox from this control plane's own audit records, each once: what is on record was done, and a crash in
 * between loses nothing, since the place reached moves in the same transaction. Begins with what comes after the first start.
 */
export class OutboxFeed {
  readonly #services: Services;
  readonly #settings: SignalSettings;
  readonly #onLetters: () => void;
  readonly #unsubscribe: () => void;
  #isWanted = false;
  #running: Promise<void> | undefined;
  #isStopped = false;

  constructor(services: Services, settings: SignalSettings, onLetters: () => void) {
    this.#services = services;
    this.#settings = settings;
    this.#onLetters = onLetters;
    this.#unsubscribe = services.audit.onAppend(({ action }) => {
      if (toldActions.includes(action)) this.wake();
    });
  }

  /** Looks for new records, after those that are being looked at. */
  wake(): void {
    this.#isWanted = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Notes where to begin, if nothing was read before. */
  async begin(): Promise<void> {
    const { store, audit } = this.#services;
    const { writer } = audit;
    await store.write(async (tx) => {
      if ((await readMeta(tx, cursorKey(writer))) !== undefined) return;
      const head = await tx
        .selectFrom('audit')
        .select((eb) => eb.fn.max('position').as('position'))
        .where('writer', '=', writer)
        .executeTakeFirst();
      await writeMeta(tx, cursorKey(writer), String(head?.position ?? 0));
    });
    this.wake();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#unsubscribe();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { store, logger } = this.#services;
    while (this.#isWanted && !this.#isStopped) {
      this.#isWanted = false;
      try {
        const { rows, letters } = await store.write((tx) => this.#advance(tx));
        if (rows === recordsAtOnce) this.#isWanted = true;
        if (letters > 0) this.#onLetters();
      } catch (error) {
        const { code, message, reason } = toZtnaError(error);
        if (reason !== 'store_unavailable')
          logger.error('signal_feed_failed', { code, error: message });
        return; // the next record, or the timer, tries again
      }
    }
  }

  async #advance(tx: Tx): Promise<{ rows: number; letters: number }> {
    const { writer } = this.#services.audit;
    const cursor = Number((await readMeta(tx, cursorKey(writer))) ?? 0);
    const head = await tx
      .selectFrom('audit')
      .select((eb) => eb.fn.max('position').as('position'))
      .where('writer', '=', writer)
      .executeTakeFirst();
    const end = head?.position ?? 0;
    if (end <= cursor) return { rows: 0, letters: 0 };
    const records = await tx
      .selectFrom('audit')
      .selectAll()
      .where('writer', '=', writer)
      .where('position', '>', cursor)
      .where('position', '<=', end)
      .where('action', 'in', toldActions)
      .orderBy('position')
      .limit(recordsAtOnce)
      .execute();
    let letters = 0;
    for (const record of records) {
      const owner = record.userName ?? (await ownerOf(tx, record.subject));
      for (const event of ownEventsOf(record, owner)) letters += await this.#post(tx, event);
    }
    const reached = records.length === recordsAtOnce ? records.at(-1)?.position : end;
    await writeMeta(tx, cursorKey(writer), String(reached ?? end));
    return { rows: records.length, letters };
  }

  async #post(tx: Tx, event: OwnEvent): Promise<number> {
    const { clock, settings } = this.#services;
    const nowMs = clock.nowMs();
    const put = async (target: string, id: string, body: unknown) => {
      await tx
        .insertInto('signalOutbox')
        .values({
          id,
          target,
          event: event.type,
          bodyJson: JSON.stringify(body),
          attempts: 0,
          nextAtMs: nowMs,
          claimedUntilMs: 0,
          lastError: null,
          dead: 0,
          createdAtMs: nowMs,
        })
        .execute();
      await buryOldest(tx, target);
    };
    let count = 0;
    for (const { name, emailDomain } of event.isEcho ? [] : this.#settings.transmit) {
      const id = newLetterId();
      const to = { jti: id, issuer: settings.url, iatMs: nowMs, emailDomain };
      await put(setTarget(name), id, toSetClaims(event, to));
      count += 1;
    }
    for (const { name } of this.#settings.webhooks) {
      const id = newLetterId();
      await put(webhookTarget(name), id, toWebhookBody(event, id, settings.url));
      count += 1;
    }
    return count;
  }
}

/** A receiver that is away for long may not fill the store. */
async function buryOldest(tx: Tx, target: string): Promise<void> {
  const beyond = await tx
    .selectFrom('signalOutbox')
    .select('id')
    .where('target', '=', target)
    .where('dead', '=', 0)
    .orderBy('createdAtMs', 'desc')
    .orderBy('id')
    .offset(maxWaiting)
    .limit(1)
    .executeTakeFirst();
  if (!beyond) return;
  const lastError = 'too many are waiting';
  await tx
    .updateTable('signalOutbox')
    .set({ dead: 1, lastError })
    .where('id', '=', beyond.id)
    .execute();
}

/** The name of the user whose device or session that is. */
async function ownerOf(db: Reader | Tx, id: string): Promise<string | null> {
  const owner = isId('device', id)
    ? await db.selectFrom('devices').select('userId').where('id', '=', id).executeTakeFirst()
    : isId('session', id)
      ? await db.selectFrom('sessions').select('userId').where('id', '=', id).executeTakeFirst()
      : undefined;
  if (!owner) return null;
  const user = await db
    .selectFrom('users')
    .select('name')
    .where('id', '=', owner.userId)
    .executeTakeFirst();
  return user?.name ?? null;
}
