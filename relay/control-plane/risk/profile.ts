import { addressKey, type Place, type RiskEvent } from './event.ts';
import { noteHour, unusualness } from './hours.ts';
import { isFamiliar, see, surpriseOfNew, type Known } from './known.ts';
import { emptyState, parseState, type Alert, type ProfileState } from './profile-state.ts';
import { distanceKm, isImpossible } from './travel.ts';
import {
  addAmount,
  emptyVolume,
  pointsOfRatio,
  totalWith,
  usualAmount,
  type Volume,
} from './volume.ts';
import {
  burstMs,
  caps,
  defaultLearning,
  keptDays,
  leastUsualBytes,
  leastUsualConnections,
  strangeFailuresPoints,
  weights,
  type Anomaly,
  type Learning,
} from './weights.ts';

/** One named part of a score. */
export interface Contribution {
  readonly name: Anomaly | 'signal';
  readonly points: number; // 1 to 100
  readonly detail: string;
}

export interface Assessment {
  readonly score: number; // 0 to 100, whole
  /** What it is made of, largest first; together they may be more than 100. */
  readonly contributions: readonly Contribution[];
}

/** What an external source says of a user. */
export interface RiskSignal {
  /** Of the source: a later one of the same id raises or prolongs it, and never lowers. */
  readonly id: string;
  readonly points: number;
  readonly untilMs: number;
  readonly detail: string;
}

const hourMs = 3_600_000;
const hoursPerDay = 24;
const latestMs = 8.64e15;

/** A failure or denial more than this adds points. */
const freeFailures = 3;
const freeDenials = 4;
const pointsPerFailure = 8;
const pointsPerDenial = 6;
/** The same app again is hardly news. */
const repeatedDenial = 0.25;
const appsOverUsual = 3;
const pointsPerApp = 8;
/** An anomaly of one app concerns the user's others half. */
const otherAppShare = 0.5;
const bytesScale = { from: 8, to: 20, points: 80, most: weights.bytes_out.points };
const connectionScale = { from: 4, to: 16, points: 30, most: weights.connection_rate.points };

/**
 * What is usual for one user, learned from what he or she does, and what was unusual lately. Holds no clock: time is
 * what the events say, and never goes back. Takes any values without throwing: what makes no sense teaches nothing.
 */
export class RiskProfile {
  readonly #state: ProfileState;
  readonly #learning: Learning;

  constructor(learning = defaultLearning, state = emptyState()) {
    this.#learning = learning;
    this.#state = state;
  }

  /** A profile from what `toJson` gave; undefined for anything else. */
  static fromJson(json: string, learning = defaultLearning): RiskProfile | undefined {
    const state = parseState(json);
    return state && new RiskProfile(learning, state);
  }

  toJson(): string {
    return JSON.stringify(this.#state);
  }

  /** True once it has seen enough of the user to call something unusual. */
  get isWarm(): boolean {
    const { events, activeDays } = this.#state;
    return events >= this.#learning.events && activeDays.length >= this.#learning.days;
  }

  /** Compares an event with what is usual, then learns it. Answers what was unusual about it. */
  learn(event: RiskEvent): Alert[] {
    const state = this.#state;
    if (!isInstant(event.atMs)) return [];
    const atMs = Math.max(event.atMs, state.lastMs);
    state.lastMs = atMs;
    this.#beginDay(dayOf(atMs));
    const raised: Alert[] = [];
    const raise = (name: Anomaly, points: number, detail: string, app: string | null = null) => {
      const whole = Math.round(Math.min(Math.max(points, 0), weights[name].points));
      if (whole > 0) raised.push({ name, app, points: whole, atMs, detail: shorten(detail, 2) });
    };
    const app = typeof event.app === 'string' ? shorten(event.app) : null;
    switch (event.kind) {
      case 'sign_in_refused':
        // Who failed has not shown to be the user: nothing of it teaches what is usual.
        this.#noteFailure(atMs, event.device, raise);
        break;
      case 'sign_in':
      case 'resume':
        this.#visit(atMs, event, raise);
        break;
      case 'connect':
        this.#visit(atMs, event, raise);
        this.#noteConnection(atMs, raise);
        if (app !== null) this.#noteApp(app, raise);
        break;
      case 'denied':
        this.#visit(atMs, event, raise);
        this.#noteDenial(atMs, app ?? '', raise);
        if (app !== null) this.#noteApp(app, raise);
        break;
      case 'bytes':
        this.#visit(atMs, event, raise);
        this.#noteBytes(atMs, app ?? '', event.bytesOut, event.spanMs, raise);
        break;
      default:
        event satisfies never;
    }
    for (const alert of raised) this.#remember(alert);
    return raised;
  }

  /** Takes what another source says. It counts whole until its end. */
  signal(signal: RiskSignal): void {
    const { signals } = this.#state;
    const { points, untilMs } = signal;
    if (!isInstant(untilMs) || !Number.isFinite(points) || points < 1) return;
    const id = shorten(signal.id);
    const index = signals.findIndex((known) => known.id === id);
    const known = index < 0 ? undefined : signals.splice(index, 1)[0];
    const isLive = known !== undefined && known.untilMs > this.#state.lastMs;
    signals.push({
      id,
      points: Math.max(Math.min(Math.round(points), 100), isLive ? known.points : 0),
      untilMs: Math.max(untilMs, known?.untilMs ?? 0),
      detail: shorten(signal.detail, 2),
    });
    if (signals.length <= caps.signals) return;
    const least = signals.reduce((a, b) => (b.points < a.points ? b : a));
    signals.splice(signals.indexOf(least), 1);
  }

  /** The score for a tunnel to `app`, or for the user as such, at `nowMs`. It only falls until something happens. */
  assess(nowMs: number, app: string | null = null): Assessment {
    const { alerts, signals, lastMs } = this.#state;
    const atMs = isInstant(nowMs) ? nowMs : lastMs;
    const appName = app === null ? null : shorten(app);
    const byName = new Map<string, Contribution>();
    const add = (contribution: Contribution) => {
      const points = Math.round(contribution.points);
      const known = byName.get(contribution.name);
      if (points < 1 || (known && known.points >= points)) return; // one of a kind
      byName.set(contribution.name, { ...contribution, points });
    };
    for (const { name, points, atMs: raisedAtMs, detail, app: own } of alerts) {
      const share = own === null || appName === null || own === appName ? 1 : otherAppShare;
      add({ name, points: share * points * fading(name, atMs - raisedAtMs), detail });
    }
    for (const { points, untilMs, detail } of signals) {
      if (untilMs > atMs) add({ name: 'signal', points, detail });
    }
    const contributions = [...byName.values()].sort(
      (a, b) => b.points - a.points || (a.name < b.name ? -1 : 1),
    );
    const sum = contributions.reduce((total, { points }) => total + points, 0);
    return { score: Math.min(100, sum), contributions };
  }

  #beginDay(day: number): void {
    const state = this.#state;
    const { today } = state;
    if (today?.day === day) return;
    if (today) state.activeDays.push([today.day, today.apps.length]);
    if (state.activeDays.length > caps.days) state.activeDays.shift();
    const isKept = ([seen]: readonly [number, number]) => day - seen <= keptDays;
    state.activeDays = state.activeDays.filter(isKept);
    state.jumps = state.jumps.filter((jump) => day - jump <= caps.days);
    state.today = { day, apps: [] };
  }

  /** When, from where and from which device. */
  #visit(atMs: number, event: RiskEvent, raise: Raise): void {
    const state = this.#state;
    const day = dayOf(atMs);
    const hour = hourOf(atMs);
    state.events = Math.min(state.events + 1, Number.MAX_SAFE_INTEGER);
    if (this.isWarm && event.kind !== 'bytes') {
      const share = unusualness(state.hours, hour);
      raise('unusual_hour', share * weights.unusual_hour.points, `${hour % hoursPerDay}:00 UTC`);
    }
    if (hour !== state.lastHour) noteHour(state.hours, hour);
    state.lastHour = hour;

    const novelty = (list: Known[], key: string, most: number, name: Anomaly) => {
      const surprise = surpriseOfNew(list, state.activeDays.length);
      if (see(list, key, day, most) && this.isWarm) {
        raise(name, surprise * weights[name].points, key);
      }
    };
    if (typeof event.device === 'string') {
      novelty(state.devices, shorten(event.device), caps.devices, 'new_device');
    }
    const address = typeof event.address === 'string' ? addressKey(event.address) : undefined;
    if (address !== undefined) novelty(state.addresses, address, caps.addresses, 'new_address');
    if (!event.place) return;
    const { country } = event.place;
    const network = networkKey(event.place);
    this.#travel(atMs, event.place, network, raise);
    if (typeof country === 'string') {
      novelty(state.countries, shorten(country), caps.countries, 'new_country');
    }
    if (network !== null) novelty(state.networks, network, caps.networks, 'new_network');
  }

  #travel(atMs: number, place: Place, network: string | null, raise: Raise): void {
    const state = this.#state;
    const { latitude, longitude } = place;
    if (!isDegrees(latitude, 90) || !isDegrees(longitude, 180)) return;
    const from = state.where;
    const to = { latitude: latitude + 0, longitude: longitude + 0, atMs }; // JSON has no -0
    state.where = to;
    if (!from || !isImpossible(from, to)) return;
    const key = network ?? (place.country === null ? '' : shorten(place.country));
    const list = network === null ? state.countries : state.networks;
    if (isFamiliar(list, key, dayOf(atMs))) {
      // A way out of a private network, or two devices: it jumps, but the user is known there.
      state.jumps.push(dayOf(atMs));
      if (state.jumps.length > caps.burst) state.jumps.shift();
      return;
    }
    // Who jumps often is told little by one jump more.
    const share = 2 / (2 + new Set(state.jumps).size);
    const minutes = Math.round((atMs - from.atMs) / 60_000);
    const detail = `${Math.round(distanceKm(from, to))} km in ${minutes} min`;
    raise('impossible_travel', share * weights.impossible_travel.points, detail);
  }

  #noteFailure(atMs: number, device: string | null, raise: Raise): void {
    const { failures, devices } = this.#state;
    const own = typeof device === 'string' ? shorten(device) : undefined;
    const isStrange = !devices.some(([known]) => known === own);
    failures.push([atMs, isStrange ? 1 : 0]);
    if (failures.length > caps.burst) failures.shift();
    const recent = failures.filter(([failedAtMs]) => atMs - failedAtMs < burstMs);
    const owned = recent.filter(([, strange]) => strange === 0).length;
    const points = (count: number) => (count - freeFailures) * pointsPerFailure;
    const most = Math.max(points(owned), Math.min(points(recent.length), strangeFailuresPoints));
    raise('failed_sign_ins', most, `${recent.length} in ${burstMs / 60_000} min`);
  }

  #noteDenial(atMs: number, app: string, raise: Raise): void {
    const { denials } = this.#state;
    denials.push([atMs, app]);
    if (denials.length > caps.burst) denials.shift();
    const recent = denials.filter(([deniedAtMs]) => atMs - deniedAtMs < burstMs);
    const apps = new Set(recent.map(([, name]) => name)).size;
    const count = apps + repeatedDenial * (recent.length - apps);
    const detail = `${recent.length} of ${apps} apps in ${burstMs / 60_000} min`;
    raise('denied_burst', (count - freeDenials) * pointsPerDenial, detail);
  }

  #noteConnection(atMs: number, raise: Raise): void {
    const { connections } = this.#state;
    const hour = hourOf(atMs);
    if (this.isWarm && this.#isReady(connections)) {
      const usual = usualAmount(connections, leastUsualConnections);
      const total = totalWith(connections, 1, hour, 1);
      const points = pointsOfRatio(total / usual, connectionScale);
      raise('connection_rate', points, `${total} in an hour, usual ${Math.round(usual)}`);
    }
    addAmount(connections, 1, hour, 1);
  }

  #noteApp(app: string, raise: Raise): void {
    const { today, activeDays } = this.#state;
    if (!today || today.apps.includes(app) || today.apps.length >= caps.appsPerDay) return;
    today.apps.push(app);
    if (!this.isWarm) return;
    const counts = activeDays.map(([, apps]) => apps);
    const mean = counts.reduce((total, apps) => total + apps, 0) / Math.max(counts.length, 1);
    const most = Math.max(0, ...counts);
    const over = today.apps.length - Math.max(most, 2 * mean) - appsOverUsual;
    const detail = `${today.apps.length} today, at most ${most} before`;
    raise('many_apps', over * pointsPerApp, detail);
  }

  #noteBytes(atMs: number, app: string, bytesOut: number, spanMs: number, raise: Raise): void {
    if (!isAmount(bytesOut) || !isAmount(spanMs)) return;
    const { apps } = this.#state;
    const index = apps.findIndex(([name]) => name === app);
    const volume = (index < 0 ? undefined : apps.splice(index, 1)[0]?.[1]) ?? emptyVolume();
    const hour = hourOf(atMs);
    const hours = spanMs / hourMs;
    if (this.isWarm && bytesOut > 0) {
      const known = this.#isReady(volume) ? [volume] : this.#otherVolumes(volume);
      const usual = Math.max(...known.map((other) => usualAmount(other, leastUsualBytes)));
      const total = totalWith(volume, bytesOut, hour, hours);
      const points = pointsOfRatio(total / usual, bytesScale);
      const amounts = `${Math.round(total)} bytes in an hour, usual ${Math.round(usual)}`;
      raise('bytes_out', points, `${app}: ${amounts}`, app);
    }
    addAmount(volume, bytesOut, hour, hours);
    apps.push([app, volume]);
    if (apps.length > caps.apps) apps.shift();
  }

  /** What an app that is hardly known is held against: the most that is usual for any, once that is known. */
  #otherVolumes(own: Volume): Volume[] {
    const others = this.#state.apps
      .map(([, other]) => other)
      .filter((other) => this.#isReady(other));
    return others.length > 0 && own.days > 1 ? [own, ...others] : others;
  }

  #isReady({ past, days }: Volume): boolean {
    return past.length >= this.#learning.hours && days >= this.#learning.hourDays;
  }

  /** Of one kind the strongest counts: the same again renews it, and does not add up. */
  #remember(alert: Alert): void {
    const { alerts } = this.#state;
    const index = alerts.findIndex(({ name, app }) => name === alert.name && app === alert.app);
    const known = alerts[index];
    if (known) {
      if (known.points * fading(known.name, alert.atMs - known.atMs) > alert.points) return;
      alerts.splice(index, 1);
    }
    alerts.push(alert);
    if (alerts.length > caps.alerts) alerts.shift();
  }
}

type Raise = (name: Anomaly, points: number, detail: string, app?: string | null) => void;

function fading(name: Anomaly, ageMs: number): number {
  return 0.5 ** (Math.max(0, ageMs) / weights[name].halfLifeMs);
}

function networkKey({ network }: Place): string | null {
  return typeof network === 'number' && Number.isSafeInteger(network) ? `AS${network}` : null;
}

function isInstant(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= latestMs;
}

function isAmount(value: number): boolean {
  return Number.isFinite(value) && value >= 0;
}

function isDegrees(value: number | null, most: number): value is number {
  return typeof value === 'number' && Math.abs(value) <= most;
}

function hourOf(atMs: number): number {
  return Math.floor(atMs / hourMs);
}

function dayOf(atMs: number): number {
  return Math.floor(hourOf(atMs) / hoursPerDay);
}

/** Bounded, and one byte a character in JSON, so that a profile is too. */
function shorten(text: string, times = 1): string {
  return text.slice(0, times * caps.textUnits).replace(/[^\x20-\x7e]|["\\]/g, '?');
}
