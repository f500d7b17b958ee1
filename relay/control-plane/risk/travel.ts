import { travelKmPerHour, travelLeastKm, travelSlackKm } from './weights.ts';

/** Where somebody was, and when. */
export interface Whereabouts {
  readonly latitude: number;
  readonly longitude: number;
  readonly atMs: number;
}

const earthRadiusKm = 6_371;
const radians = Math.PI / 180;

/** The way along the surface, by the haversine formula. */
export function distanceKm(a: Omit<Whereabouts, 'atMs'>, b: Omit<Whereabouts, 'atMs'>): number {
  const sinLatitude = Math.sin(((b.latitude - a.latitude) * radians) / 2);
  const sinLongitude = Math.sin(((b.longitude - a.longitude) * radians) / 2);
  const h =
    sinLatitude ** 2 +
    Math.cos(a.latitude * radians) * Math.cos(b.latitude * radians) * sinLongitude ** 2;
  return 2 * earthRadiusKm * Math.asin(Math.min(1, Math.sqrt(h)));
}

/** True when nobody travels from one to the other in that time, whatever the address data are wrong by. */
export function isImpossible(from: Whereabouts, to: Whereabouts): boolean {
  const km = distanceKm(from, to);
  if (km < travelLeastKm) return false;
  const hours = Math.max(0, to.atMs - from.atMs) / 3_600_000;
  return km - travelSlackKm > hours * travelKmPerHour;
}
