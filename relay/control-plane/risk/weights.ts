/** What each contribution is worth at most, and how fast it is forgotten; `docs/verification.md` repeats them. */

const hourMs = 3_600_000;

export interface Weight {
  /** The most that it adds to the score. */
  readonly points: number;
  /** After so long without anything new it adds half. */
  readonly halfLifeMs: number;
}

export const weights = {
  unusual_hour: { points: 10, halfLifeMs: 2 * hourMs },
  new_address: { points: 3, halfLifeMs: 2 * hourMs },
  new_network: { points: 10, halfLifeMs: 6 * hourMs },
  new_country: { points: 25, halfLifeMs: 12 * hourMs },
  new_device: { points: 15, halfLifeMs: 24 * hourMs },
  impossible_travel: { points: 45, halfLifeMs: 6 * hourMs },
  failed_sign_ins: { points: 40, halfLifeMs: hourMs },
  denied_burst: { points: 40, halfLifeMs: hourMs },
  many_apps: { points: 40, halfLifeMs: 6 * hourMs },
  connection_rate: { points: 30, halfLifeMs: hourMs },
  bytes_out: { points: 90, halfLifeMs: 2 * hourMs },
} as const satisfies Record<string, Weight>;

export type Anomaly = keyof typeof weights;

/** When a profile knows enough to call something unusual. Until then nothing is. */
export interface Learning {
  readonly events: number;
  /** Days on which the user was seen. */
  readonly days: number;
  /** For amounts: hours that were counted, and on how many days. */
  readonly hours: number;
  readonly hourDays: number;
}

export const defaultLearning: Learning = { events: 20, days: 5, hours: 8, hourDays: 3 };

/** Failed sign-ins from a device where the user never signed in: anybody with one could make them. */
export const strangeFailuresPoints = 15;
/** How far back failures and denials are counted together. */
export const burstMs = 900_000;
/** Less per hour is never much: bytes of one app, connections. */
export const leastUsualBytes = 1_048_576;
export const leastUsualConnections = 10;

/** Faster than an airliner, over more than what address data are wrong by. */
export const travelKmPerHour = 900;
export const travelLeastKm = 300;
export const travelSlackKm = 100;

/** Bounds of a profile. What was seen longest ago goes first. */
export const caps = {
  addresses: 64,
  networks: 64,
  countries: 32,
  devices: 64,
  apps: 32,
  appsPerDay: 64,
  days: 60,
  hours: 48,
  burst: 32,
  alerts: 48,
  signals: 16,
  textUnits: 64,
} as const;

/** What was not seen for so many days is forgotten. */
export const keptDays = 120;
