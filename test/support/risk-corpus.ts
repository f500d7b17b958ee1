import { SeededRandom } from './random.ts';
import type { Place, RiskEvent } from '../../relay/control-plane/risk/index.ts';

/** One made-up person and what he or she did, in order of time. */
export interface Person {
  readonly user: string;
  readonly habits: Habits;
  readonly events: readonly RiskEvent[];
}

export interface CorpusOptions {
  readonly users: number;
  readonly days: number;
  readonly seed: number;
}

interface City extends Place {
  readonly country: string;
  readonly latitude: number;
  readonly longitude: number;
  readonly zone: number; // hours east of UTC
}

/** Where somebody is: a place, and an address there. */
export interface Spot {
  readonly place: Place;
  readonly address: string;
}

/** How somebody lives and works. Shares are probabilities. */
export interface Habits {
  readonly city: City;
  readonly startHour: number; // local
  readonly hours: number;
  readonly homeShare: number; // of days
  readonly mobileShare: number; // of days, for a while
  readonly weekendShare: number;
  readonly eveningShare: number;
  readonly connectsPerApp: number;
  readonly apps: readonly AppHabit[];
  readonly device: string;
  readonly office: Spot;
  readonly vpn: Spot | null;
  readonly vpnFromDay: number;
  readonly trips: readonly Trip[];
  readonly holiday: { readonly from: number; readonly to: number } | null;
  readonly newDeviceDay: number; // Infinity for never
}

export interface AppHabit {
  readonly app: string;
  readonly medianBytes: number; // out, in an hour
  readonly deviation: number; // of its logarithm
}

interface Trip {
  readonly from: number; // days
  readonly to: number;
  readonly city: City;
}

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;
/** A Monday, 00:00 UTC. */
export const corpusStartMs = Date.UTC(2026, 0, 5);

const city = (country: string, latitude: number, longitude: number, zone: number): City => ({
  country,
  latitude,
  longitude,
  zone,
  network: null,
});
const homeCities = [
  city('DE', 52.5, 13.4, 1),
  city('DE', 48.1, 11.6, 1),
  city('FR', 48.9, 2.4, 1),
  city('GB', 51.5, -0.1, 0),
  city('PL', 52.2, 21, 1),
];
const otherCities = [
  ...homeCities,
  city('ES', 41.4, 2.2, 1),
  city('IT', 45.5, 9.2, 1),
  city('US', 40.7, -74, -5),
  city('US', 37.8, -122.4, -8),
  city('SG', 1.4, 103.8, 8),
  city('JP', 35.7, 139.7, 9),
];
/** Where nobody of these lives or travels. */
export const attackerCities = [city('BR', -23.5, -46.6, -3), city('VN', 21, 105.8, 7)];

const appNames = Array.from({ length: 25 }, (_, i) => `app-${String(i + 1).padStart(2, '0')}`);

/** Somewhere in a city, in one of its networks; which one is `kind`'s. */
export function spotIn(place: City, kind: number, host: number): Spot {
  const { country, latitude, longitude } = place;
  const at = Math.abs(Math.round(latitude * 7 + longitude * 3));
  const network = 1_000 + at * 10 + kind;
  const address = `${20 + (at % 180)}.${kind}.${Math.floor(host / 250) % 250}.${1 + (host % 250)}`;
  return { place: { country, latitude, longitude, network }, address };
}

const officeKind = 1;
const vpnKind = 2;
const mobileKind = 3;
const hotelKind = 4;
const homeKinds = [5, 6, 7, 8];

/** The people of a made-up company over some weeks: all they did was their work. */
export function* ordinaryPeople({ users, days, seed }: CorpusOptions): Generator<Person> {
  for (let index = 0; index < users; index++) {
    const random = new SeededRandom(seed * 1_000_003 + index);
    const user = `user-${String(index + 1).padStart(3, '0')}`;
    const habits = makeHabits(random, index, days);
    yield { user, habits, events: live(random, user, habits, days) };
  }
}

function makeHabits(random: SeededRandom, index: number, days: number): Habits {
  const home = random.pick(homeCities);
  const isNightOwl = index % 20 === 0;
  const isTraveller = index % 10 === 1;
  const isDeveloper = index % 4 === 2;
  const hasVpn = index % 10 === 3;
  const tripCount = isTraveller ? random.whole(2, 3) : random.chance(0.08) ? 1 : 0;
  const trips = Array.from({ length: tripCount }, (_, i) => {
    const from = Math.floor((days / (tripCount + 1)) * (i + 1)) + random.whole(-2, 2);
    return { from, to: from + random.whole(1, 4), city: random.pick(otherCities) };
  });
  const holidayFrom = random.whole(3, Math.max(4, days - 5));
  return {
    city: home,
    startHour: isNightOwl ? random.between(15, 18) : random.normal(8.8, 0.7),
    hours: random.between(6.5, 9),
    homeShare: random.pick([0, 0.2, 0.4, 0.6, 1]),
    mobileShare: random.pick([0, 0.05, 0.3]),
    weekendShare: random.pick([0, 0, 0.05, 0.15]),
    eveningShare: random.pick([0, 0.05, 0.2]),
    connectsPerApp: isDeveloper ? random.between(5, 15) : random.between(1, 3),
    apps: shuffled(random, appNames)
      .slice(0, random.whole(2, 7))
      .map((app) => ({
        app,
        medianBytes: random.lognormal(8e6, 1.5),
        deviation: random.between(0.5, 1.2),
      })),
    device: `dev_${index}`,
    office: spotIn(home, officeKind, 7),
    vpn: hasVpn ? spotIn(random.pick(otherCities), vpnKind, 9) : null,
    vpnFromDay: index % 20 === 3 ? 12 : 0,
    trips,
    holiday: random.chance(0.25)
      ? { from: holidayFrom, to: holidayFrom + random.whole(3, 12) }
      : null,
    newDeviceDay: random.chance(0.05) ? random.whole(8, days) : Infinity,
  };
}

function live(random: SeededRandom, user: string, habits: Habits, days: number): RiskEvent[] {
  const events: RiskEvent[] = [];
  const homeKind = random.pick(homeKinds);
  let homeHost = random.whole(0, 20_000);
  let lastCity = habits.city;
  for (let day = 0; day < days; day++) {
    const trip = habits.trips.find(({ from, to }) => day >= from && day <= to);
    const here = trip?.city ?? habits.city;
    const hasFlown = here !== lastCity;
    lastCity = here;
    if (random.chance(0.1)) homeHost = random.whole(0, 20_000);
    const { holiday } = habits;
    if (holiday && day >= holiday.from && day <= holiday.to) {
      if (!random.chance(0.04)) continue; // a look at something urgent
    } else if (day % 7 > 4 ? !random.chance(habits.weekendShare) : random.chance(0.03)) continue;
    const localStart = Math.max(0.2, habits.startHour + random.normal(0, 0.5));
    // Who has just arrived begins in the evening.
    const startHour = hasFlown ? 19 : localStart;
    const length = day % 7 > 4 || hasFlown ? 2 : habits.hours + random.normal(0, 0.6);
    const startMs = corpusStartMs + day * dayMs + (startHour - here.zone) * hourMs;
    const isHome = random.chance(habits.homeShare);
    const main = trip
      ? spotIn(here, hotelKind, trip.from * 31)
      : isHome
        ? spotIn(here, homeKind, homeHost)
        : habits.office;
    const usedVpn = day >= habits.vpnFromDay && random.chance(0.5) ? [habits.vpn ?? []].flat() : [];
    const spots = [
      main,
      ...(random.chance(habits.mobileShare)
        ? [spotIn(here, mobileKind, random.whole(0, 60_000))]
        : []),
      ...usedVpn,
    ];
    const device = day >= habits.newDeviceDay ? `${habits.device}_new` : habits.device;
    const about = { random, user, habits, device, spots, day, days };
    events.push(...workDay(about, startMs, length));
    if (random.chance(habits.eveningShare)) {
      const eveningMs = Math.max(startMs + (length + 1) * hourMs, startMs + 11 * hourMs);
      events.push(...workDay({ ...about, spots: [main] }, eveningMs, 1));
    }
  }
  return events.sort((a, b) => a.atMs - b.atMs);
}

interface About {
  readonly random: SeededRandom;
  readonly user: string;
  readonly habits: Habits;
  readonly device: string;
  readonly spots: readonly Spot[]; // the first for most of the day
  readonly day: number;
  readonly days: number;
}

function workDay(about: About, startMs: number, hours: number): RiskEvent[] {
  const { random, user, habits, device, spots, day, days } = about;
  const events: RiskEvent[] = [];
  const spotAt = (share: number) =>
    share < 0.6 ? spots[0] : spots[Math.min(spots.length - 1, Math.floor((share - 0.4) * 5))];
  const note = (atMs: number, share: number, rest: object) => {
    const spot = spotAt(share);
    const facts = { atMs: Math.round(atMs), user, device, app: null, ...spot };
    events.push({ ...facts, ...rest } as RiskEvent);
  };
  // Wrong passwords: now and then one, seldom a forgotten one.
  const failures = random.chance(0.003) ? random.whole(4, 6) : random.chance(0.08) ? 1 : 0;
  for (let i = 0; i < failures; i++) {
    note(startMs - (failures - i) * 12_000, 0, { kind: 'sign_in_refused' });
  }
  note(startMs, 0, { kind: 'sign_in' });

  const used = habits.apps.filter((_, i) => i === 0 || random.chance(0.7));
  const others = appNames.filter((app) => !habits.apps.some((own) => own.app === app));
  // Something new, or everything at once because of a new task.
  const fresh = random.chance(0.004) ? 6 : random.chance(0.05) ? 1 : 0;
  const visited = shuffled(random, others)
    .slice(0, fresh)
    .map((app) => ({ app, medianBytes: random.lognormal(4e6, 1), deviation: 1 }));
  // A script that opens a connection each time.
  const burst = random.chance(0.01) ? 6 : 1;
  const isMonthEnd = day >= days - 2;
  for (const [index, { app, medianBytes, deviation }] of [...used, ...visited].entries()) {
    const connects = Math.max(1, Math.round(random.normal(habits.connectsPerApp * burst, 1)));
    for (let i = 0; i < connects; i++) {
      const share = i === 0 ? 0 : random.next();
      note(startMs + 60_000 + share * hours * hourMs, share, { kind: 'connect', app });
    }
    const isUsed = random.between(0.3, 1);
    for (let hour = 0; hour < hours; hour++) {
      if (!random.chance(isUsed)) continue;
      const bulk = random.chance(0.003) ? random.lognormal(6, 0.5) : 1;
      const busy = isMonthEnd && index === 0 ? 3 : 1;
      const bytes = Math.round(random.lognormal(medianBytes, deviation) * bulk * busy);
      const share = (hour + 0.9) / Math.max(hours, 1);
      for (const part of [0.4, 0.9]) {
        const rest = { kind: 'bytes', app, bytesOut: Math.round(bytes / 2), spanMs: hourMs / 2 };
        note(startMs + (hour + part) * hourMs, Math.min(share, 1), rest);
      }
    }
  }
  // A laptop that was closed for a while.
  const resumes = random.whole(0, 4);
  for (let i = 0; i < resumes; i++) {
    const share = random.next();
    note(startMs + share * hours * hourMs, share, { kind: 'resume', app: used[0]?.app });
  }
  const denials = random.chance(0.002) ? random.whole(4, 9) : random.chance(0.02) ? 1 : 0;
  const wanted = random.pick(others);
  const share = random.next();
  for (let i = 0; i < denials; i++) {
    note(startMs + share * hours * hourMs + i * 4_000, share, { kind: 'denied', app: wanted });
  }
  return events;
}

function shuffled<T>(random: SeededRandom, list: readonly T[]): T[] {
  return list
    .map((item) => [random.next(), item] as const)
    .sort(([a], [b]) => a - b)
    .map(([, item]) => item);
}
