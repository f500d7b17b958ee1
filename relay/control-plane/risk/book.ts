import { RiskProfile, type Contribution, type RiskSignal } from './profile.ts';
import type { RiskEvent } from './event.ts';
import type { Alert } from './profile-state.ts';
import { defaultLearning, type Learning } from './weights.ts';

/** Where profiles outlive the process. Keys are what the events call `user`. */
export interface RiskStore {
  /** The text that was saved last; undefined when there is none. */
  load(user: string): Promise<string | undefined>;
  save(user: string, json: string): Promise<void>;
}

/** A score as policies read it, with what it is made of. */
export interface RiskFacts {
  readonly score: number; // 0 to 100
  /** Names of what it is made of, weightiest first. */
  readonly factors: readonly string[];
  readonly contributions: readonly (Contribution | UnknownRisk)[];
}

interface UnknownRisk {
  readonly name: 'risk_unknown';
  readonly points: number;
  readonly detail: string;
}

export interface RiskBookOptions {
  readonly store: RiskStore;
  readonly learning?: Learning;
  /** Profiles in memory; beyond, those used longest ago are saved and let go. Default 20,000. */
  readonly maxProfiles?: number;
  /** Called with what an event raised, once it is learned. */
  readonly onAlerts?: (user: string, alerts: readonly Alert[]) => void;
  /** Called when a saved profile cannot be used: learning begins anew. */
  readonly onUnreadable?: (user: string) => void;
}

const defaultMaxProfiles = 20_000;

/** An unknown risk is the highest: `of` fails closed where `load` was forgotten, or has failed. */
const unknownRisk: RiskFacts = {
  score: 100,
  factors: ['risk_unknown'],
  contributions: [{ name: 'risk_unknown', points: 100, detail: 'the profile is not loaded' }],
};

/**
 * The profiles of all users that matter now. Has no clock and no timer: its owner loads a user before asking, and
 * flushes from time to time and before it ends.
 */
export class RiskBook {
  readonly #options: RiskBookOptions;
  readonly #profiles = new Map<string, RiskProfile>(); // used last comes last
  readonly #unsaved = new Set<string>();

  constructor(options: RiskBookOptions) {
    this.#options = options;
  }

  /**
   * Makes `of` know the user. Rejects with what the store rejected with. Inside a transaction give a loader that reads
   * through it: nothing here waits for a load that another has begun.
   */
  async load(user: string, loader: Pick<RiskStore, 'load'> = this.#options.store): Promise<void> {
    if (this.#profiles.has(user)) return;
    const { learning = defaultLearning, onUnreadable } = this.#options;
    const json = await loader.load(user);
    if (this.#profiles.has(user)) return; // somebody else was faster, and may have learned since
    const known = json === undefined ? undefined : RiskProfile.fromJson(json, learning);
    if (json !== undefined && !known) onUnreadable?.(user);
    this.#profiles.set(user, known ?? new RiskProfile(learning));
  }

  /** The score of a tunnel of `user` to `app`; with null of the user as such. */
  of(user: string, app: string | null, nowMs: number): RiskFacts {
    const profile = this.#touch(user);
    if (!profile) return unknownRisk;
    const { score, contributions } = profile.assess(nowMs, app);
    return { score, contributions, factors: contributions.map(({ name }) => name) };
  }

  /** Learns an event, and first loads its user where need be. */
  async note(event: RiskEvent): Promise<void> {
    await this.load(event.user);
    const alerts = this.#touch(event.user)?.learn(event) ?? [];
    this.#unsaved.add(event.user);
    if (alerts.length > 0) this.#options.onAlerts?.(event.user, alerts);
  }

  /** Takes what another source says of a user, and saves it: nobody says it twice. */
  async signal(user: string, signal: RiskSignal): Promise<void> {
    await this.load(user);
    this.#touch(user)?.signal(signal);
    this.#unsaved.add(user);
    await this.flush(user);
  }

  /** Saves what is new, of one user or of all. What cannot be saved is kept for the next time; rejects then. */
  async flush(only?: string): Promise<void> {
    if (only === undefined) await this.#letGo();
    const users = only === undefined ? [...this.#unsaved] : [only];
    for (const user of users) {
      const profile = this.#profiles.get(user);
      if (!profile || !this.#unsaved.delete(user)) continue;
      try {
        await this.#options.store.save(user, profile.toJson());
      } catch (error) {
        this.#unsaved.add(user);
        throw error;
      }
    }
  }

  #touch(user: string): RiskProfile | undefined {
    const profile = this.#profiles.get(user);
    if (!profile) return undefined;
    this.#profiles.delete(user);
    this.#profiles.set(user, profile);
    return profile;
  }

  async #letGo(): Promise<void> {
    const { maxProfiles = defaultMaxProfiles } = this.#options;
    while (this.#profiles.size > maxProfiles) {
      const [oldest] = this.#profiles.keys();
      if (oldest === undefined) return;
      try {
        await this.flush(oldest);
      } catch {
        return; // none is lost; the next flush tells its owner
      }
      if (!this.#unsaved.has(oldest)) this.#profiles.delete(oldest);
    }
  }
}
