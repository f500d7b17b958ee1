import { ZtnaError } from '../../../protocol/index.ts';
import { exportRecord, parseExportedRecord } from '../audit/index.ts';
import { AuditEvents } from './audit-events.ts';
import { parseRiskEvent, type RiskEvent } from './event.ts';
import { noPlaces, type Places } from './place.ts';
import { RiskProfile, type Contribution } from './profile.ts';
import { defaultLearning, type Learning } from './weights.ts';

/** The score of a user after one event. */
export interface RiskMoment {
  readonly atMs: number;
  readonly user: string;
  readonly event: RiskEvent['kind'];
  readonly app: string | null;
  readonly score: number;
  readonly contributions: readonly Contribution[];
  /** True when this event brought the score up to the threshold. */
  readonly hasCrossed: boolean;
}

/** A share of a whole, for rates. */
export interface Share {
  readonly count: number;
  readonly of: number;
}

export interface ReplaySummary {
  readonly events: number;
  /** Users whose profile was still learning at the end. */
  readonly learning: number;
  readonly highest: number;
  readonly threshold: number;
  /** Events that crossed the threshold, of those after learning. */
  readonly moments: Share;
  /** Users who ever crossed it. */
  readonly users: Share;
  /** Days of a user on which it was crossed, of those after learning. */
  readonly userDays: Share;
}

export interface ReplayOptions {
  readonly places?: Places;
  readonly learning?: Learning;
  /** Default 100. */
  readonly threshold?: number;
  /** Leaves everybody else out. */
  readonly user?: string | undefined;
}

const dayMs = 86_400_000;

interface Track {
  readonly profile: RiskProfile;
  day: number;
  days: number; // once learned
  crossedDay: number;
  crossedDays: number;
  hasCrossed: boolean;
  isAbove: boolean;
}

/**
 * Runs a recorded history through the profiles that decide in earnest. Keeps the profiles of all users that occur, and
 * nothing else of the history.
 */
export class RiskReplay {
  readonly #options: ReplayOptions;
  readonly #threshold: number;
  readonly #tracks = new Map<string, Track>();
  readonly #audit: AuditEvents;
  readonly #places: Places;
  #events = 0;
  #learned = 0;
  #crossings = 0;
  #highest = 0;

  constructor(options: ReplayOptions = {}) {
    this.#options = options;
    this.#threshold = options.threshold ?? 100;
    this.#places = options.places ?? noPlaces;
    this.#audit = new AuditEvents(this.#places);
  }

  /**
   * Takes a line: an event, or a record of `audit export --format jsonl`. Undefined for a record that says nothing of a
   * user. Throws ERR_CONFIG_INVALID for any other line.
   */
  takeLine(line: string): RiskMoment | undefined {
    const event = this.#parse(line);
    return event && this.take(event);
  }

  take(event: RiskEvent): RiskMoment | undefined {
    const { user, atMs } = event;
    if (this.#options.user !== undefined && user !== this.#options.user) return undefined;
    this.#events++;
    const track = this.#trackOf(user);
    const { profile } = track;
    const { score: before } = profile.assess(atMs);
    profile.learn(event);
    const { score, contributions } = profile.assess(atMs);
    this.#highest = Math.max(this.#highest, score);
    // It may have fallen below in the meantime.
    const wasAbove = track.isAbove && before >= this.#threshold;
    track.isAbove = score >= this.#threshold;
    const hasCrossed = track.isAbove && !wasAbove;
    if (hasCrossed) track.hasCrossed = true;
    if (profile.isWarm) this.#count(track, Math.floor(atMs / dayMs), hasCrossed);
    return { atMs, user, event: event.kind, app: event.app, score, contributions, hasCrossed };
  }

  summary(): ReplaySummary {
    const tracks = [...this.#tracks.values()];
    const sum = (of: (track: Track) => number) => tracks.reduce((all, track) => all + of(track), 0);
    return {
      events: this.#events,
      learning: tracks.filter(({ profile }) => !profile.isWarm).length,
      highest: this.#highest,
      threshold: this.#threshold,
      moments: { count: this.#crossings, of: this.#learned },
      users: { count: sum((track) => Number(track.hasCrossed)), of: tracks.length },
      userDays: { count: sum(({ crossedDays }) => crossedDays), of: sum(({ days }) => days) },
    };
  }

  #count(track: Track, day: number, hasCrossed: boolean): void {
    this.#learned++;
    if (day > track.day) track.days++;
    track.day = Math.max(day, track.day);
    if (!hasCrossed) return;
    this.#crossings++;
    if (day > track.crossedDay) track.crossedDays++;
    track.crossedDay = Math.max(day, track.crossedDay);
  }

  #trackOf(user: string): Track {
    let track = this.#tracks.get(user);
    if (!track) {
      track = {
        profile: new RiskProfile(this.#options.learning ?? defaultLearning),
        ...{ day: -1, days: 0, crossedDay: -1, crossedDays: 0 },
        ...{ hasCrossed: false, isAbove: false },
      };
      this.#tracks.set(user, track);
    }
    return track;
  }

  #parse(line: string): RiskEvent | undefined {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new ZtnaError('ERR_CONFIG_INVALID', { message: 'this line is not JSON', cause });
    }
    if (typeof value === 'object' && value !== null && 'action' in value) {
      return this.#audit.read(exportRecord(parseExportedRecord(line)));
    }
    const event = parseRiskEvent(value);
    if (!event) {
      throw new ZtnaError('ERR_CONFIG_INVALID', {
        message: 'this line is neither an event nor an audit record',
      });
    }
    if (event.place !== null || event.address === null) return event;
    return { ...event, place: this.#places.find(event.address) };
  }
}
