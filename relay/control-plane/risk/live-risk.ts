import type { Logger } from '../../../protocol/host/index.ts';
import type { UserId } from '../../../protocol/index.ts';
import { readRiskMarks, type RiskContribution } from '../signals/marks.ts';
import { RiskBook, type RiskFacts } from './book.ts';
import type { RiskEvent } from './event.ts';
import type { Places } from './place.ts';
import type { Reader, Store, Tx } from '../store/index.ts';

/** What happened, as whoever saw it tells it; place and time are added here. */
export type Happened = RiskEvent extends infer E
  ? E extends RiskEvent
    ? Omit<E, 'place' | 'atMs' | 'user'> & { readonly user: UserId }
    : never
  : never;

export interface LiveRiskOptions {
  readonly store: Store;
  readonly places: Places;
  readonly clock: { nowMs(): number };
  readonly logger: Logger;
  /** True where other systems may tell of somebody's risk. */
  readonly hasSignals: boolean;
  /** Something unusual was seen: what this user has open must be decided on anew. */
  readonly onAlert: (user: UserId) => void;
}

/** How unusual users behave, learned from what they do and kept in the store. Of several control planes each learns of what it sees. */
export class LiveRisk {
  readonly #options: LiveRiskOptions;
  readonly #book: RiskBook;
  /** Events that are being learned, one after another. */
  #learning: Promise<void> = Promise.resolve();

  constructor(options: LiveRiskOptions) {
    this.#options = options;
    const { store, logger, onAlert } = options;
    this.#book = new RiskBook({
      store: {
        load: (user) => loadProfile(store.db, user),
        save: (user, json) => this.#save(user, json),
      },
      onAlerts: (user) => {
        onAlert(user as UserId);
      },
      onUnreadable: (user) => {
        logger.warn('risk_profile_unreadable', { user });
      },
    });
  }

  /** Where an address lies; empty where nobody knows. */
  countryOf(address: string): string {
    return this.#options.places.find(address)?.country ?? '';
  }

  /**
   * What is needed to tell the risk of this user on this device: behaviour, and what other systems say. `db` may be a
   * transaction.
   */
  async read(
    db: Reader | Tx,
    of: { readonly user: UserId; readonly device: string; readonly session: string },
    nowMs: number,
  ): Promise<(app: string | null) => RiskFacts> {
    await this.know(db, of.user);
    return this.tell(of.user, await this.readTold(db, of, nowMs), nowMs);
  }

  /** What other systems say of a user, the device used and the session, highest first. */
  async readTold(
    db: Reader | Tx,
    of: { readonly user: UserId; readonly device: string; readonly session: string },
    nowMs: number,
  ): Promise<readonly RiskContribution[]> {
    return this.#options.hasSignals ? readRiskMarks(db, of, nowMs) : [];
  }

  /** Makes a user's behaviour known, which stays in memory from then on. */
  async know(db: Reader | Tx, user: UserId): Promise<void> {
    await this.#book.load(user, { load: (id) => loadProfile(db, id) });
  }

  /** The risk of a user that is known, with what `readTold` answered. */
  tell(
    user: UserId,
    told: readonly RiskContribution[],
    nowMs: number,
  ): (app: string | null) => RiskFacts {
    const highest = told.find(({ untilMs }) => untilMs > nowMs);
    return (app) => {
      const own = this.#book.of(user, app, nowMs);
      if (!highest) return own;
      const contribution = {
        name: 'signal',
        points: highest.points,
        detail: `${highest.stream} says so`,
      } as const;
      return {
        score: Math.min(100, own.score + highest.points),
        factors: [...own.factors, 'signal'],
        contributions: [...own.contributions, contribution],
      };
    };
  }

  /** Learns of something, soon. */
  note(happened: Happened): void {
    const { clock, places, logger } = this.#options;
    const place = happened.address === null ? null : places.find(happened.address);
    const event: RiskEvent = { ...happened, atMs: clock.nowMs(), place };
    this.#learning = this.#learning
      .then(() => this.#book.note(event))
      .catch((error: unknown) => {
        logger.warn('risk_not_learned', { error: error instanceof Error ? error.message : '' });
      });
  }

  /** Saves what was learned, and lets go of the files of places. */
  async stop(): Promise<void> {
    this.#options.places.stop?.();
    await this.keep();
  }

  /** Saves what was learned. */
  async keep(): Promise<void> {
    await this.#learning;
    await this.#book.flush();
  }

  async #save(user: string, json: string): Promise<void> {
    const { store, clock } = this.#options;
    const row = { profileJson: json, updatedAtMs: clock.nowMs() };
    await store.write(async (tx) => {
      const known = await tx
        .selectFrom('users')
        .select('id')
        .where('id', '=', user as UserId)
        .executeTakeFirst();
      if (!known) return; // removed meanwhile
      await tx
        .insertInto('riskProfiles')
        .values({ userId: user as UserId, ...row })
        .onConflict((conflict) => conflict.column('userId').doUpdateSet(row))
        .execute();
    });
  }
}

async function loadProfile(db: Reader | Tx, user: string): Promise<string | undefined> {
  const row = await db
    .selectFrom('riskProfiles')
    .select('profileJson')
    .where('userId', '=', user as UserId)
    .executeTakeFirst();
  return row?.profileJson;
}
