import * as v from 'valibot';
import { emptyVolume, type Volume } from './volume.ts';
import { hoursPerWeek, type HoursOfWeek } from './hours.ts';
import { caps, weights, type Anomaly } from './weights.ts';
import type { Known } from './known.ts';
import type { Whereabouts } from './travel.ts';

/** Something unusual that happened; it counts less and less. */
export interface Alert {
  readonly name: Anomaly;
  readonly app: string | null; // the only one concerned
  readonly points: number;
  readonly atMs: number;
  readonly detail: string;
}

/** What somebody else says of the user, until an end. */
export interface Signal {
  readonly id: string;
  readonly points: number;
  readonly untilMs: number;
  readonly detail: string;
}

/** All that a profile is: plain data of bounded size, so that its JSON text is the profile. */
export interface ProfileState {
  readonly version: 1;
  lastMs: number;
  events: number;
  activeDays: [day: number, apps: number][]; // those gone by; newest last
  today: { day: number; apps: string[] } | null;
  hours: HoursOfWeek;
  lastHour: number;
  addresses: Known[];
  networks: Known[];
  countries: Known[];
  devices: Known[];
  where: Whereabouts | null;
  jumps: number[]; // days of impossible moves between familiar networks
  failures: [atMs: number, isStrange: 0 | 1][];
  denials: [atMs: number, app: string][];
  connections: Volume;
  apps: [app: string, bytes: Volume][]; // used last comes last
  alerts: Alert[];
  signals: Signal[];
}

export function emptyState(): ProfileState {
  return {
    version: 1,
    lastMs: 0,
    events: 0,
    activeDays: [],
    today: null,
    hours: Array<number>(hoursPerWeek).fill(0),
    lastHour: 0,
    addresses: [],
    networks: [],
    countries: [],
    devices: [],
    where: null,
    jumps: [],
    failures: [],
    denials: [],
    connections: emptyVolume(),
    apps: [],
    alerts: [],
    signals: [],
  };
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const name = v.pipe(v.string(), v.maxLength(caps.textUnits));
const detail = v.pipe(v.string(), v.maxLength(2 * caps.textUnits));
const points = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(100));
const known = (most: number) => v.pipe(v.array(v.tuple([name, count, count])), v.maxLength(most));
const volume = v.strictObject({
  hour: count,
  total: count,
  past: v.pipe(v.array(count), v.maxLength(caps.hours)),
  days: count,
  lastDay: count,
});
const anomaly = v.picklist(Object.keys(weights) as [Anomaly, ...Anomaly[]]);

const stateSchema = v.strictObject({
  version: v.literal(1),
  lastMs: count,
  events: count,
  activeDays: v.pipe(v.array(v.tuple([count, count])), v.maxLength(caps.days)),
  today: v.nullable(
    v.strictObject({ day: count, apps: v.pipe(v.array(name), v.maxLength(caps.appsPerDay)) }),
  ),
  hours: v.pipe(v.array(count), v.length(hoursPerWeek)),
  lastHour: count,
  addresses: known(caps.addresses),
  networks: known(caps.networks),
  countries: known(caps.countries),
  devices: known(caps.devices),
  where: v.nullable(
    v.strictObject({
      latitude: v.pipe(v.number(), v.minValue(-90), v.maxValue(90)),
      longitude: v.pipe(v.number(), v.minValue(-180), v.maxValue(180)),
      atMs: count,
    }),
  ),
  jumps: v.pipe(v.array(count), v.maxLength(caps.burst)),
  failures: v.pipe(v.array(v.tuple([count, v.picklist([0, 1])])), v.maxLength(caps.burst)),
  denials: v.pipe(v.array(v.tuple([count, name])), v.maxLength(caps.burst)),
  connections: volume,
  apps: v.pipe(v.array(v.tuple([name, volume])), v.maxLength(caps.apps)),
  alerts: v.pipe(
    v.array(v.strictObject({ name: anomaly, app: v.nullable(name), points, atMs: count, detail })),
    v.maxLength(caps.alerts),
  ),
  signals: v.pipe(
    v.array(v.strictObject({ id: name, points, untilMs: count, detail })),
    v.maxLength(caps.signals),
  ),
});

/** A state from its JSON text; undefined for what is none. */
export function parseState(json: string): ProfileState | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return undefined;
  }
  const result = v.safeParse(stateSchema, value);
  return result.success ? result.output : undefined;
}
