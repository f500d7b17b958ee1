import { caps } from './weights.ts';

/** Amounts per hour: the hour that is being counted and those before it in which there was something to count. */
export interface Volume {
  hour: number; // since 1970
  total: number;
  past: number[]; // newest last
  days: number; // on which something was counted
  lastDay: number;
}

const hoursPerDay = 24;
/** One hour teaches at most so many times the usual, so that no burst becomes the usual. */
const teachesAtMost = 10;
/** An amount of several hours counts as at most so many of them. */
const hoursAtOnce = 8;
const mostAmount = 2 ** 50;

export function emptyVolume(): Volume {
  return { hour: 0, total: 0, past: [], days: 0, lastDay: 0 };
}

/** Adds what was counted over `hours`, the last of which is `hour`. */
export function addAmount(volume: Volume, amount: number, hour: number, hours: number): void {
  closeHour(volume, hour);
  const whole = Math.max(1, Math.ceil(hours));
  const share = Math.floor(Math.min(amount, mostAmount) / whole);
  for (let i = Math.min(whole - 1, hoursAtOnce); i > 0; i--) teach(volume, share, hour);
  volume.total = Math.min(volume.total + Math.max(share, amount > 0 ? 1 : 0), mostAmount);
}

/** What the hour that is being counted comes to with this added, whichever hour the last count was in. */
export function totalWith(volume: Volume, amount: number, hour: number, hours: number): number {
  const share = Math.min(amount, mostAmount) / Math.max(1, Math.ceil(hours));
  return share + (hour > volume.hour ? 0 : volume.total);
}

/**
 * The usual amount of an hour in which there is any: the mean, or two thirds of what one hour in ten exceeds where that
 * is more, as of those whose hours differ much; but never under `least`.
 */
export function usualAmount({ past }: Volume, least: number): number {
  if (past.length === 0) return least;
  const sorted = past.toSorted((a, b) => a - b);
  const mean = past.reduce((sum, amount) => sum + amount, 0) / past.length;
  const high = sorted[Math.floor(0.9 * (sorted.length - 1))] ?? 0;
  return Math.max(mean, high / 1.5, least);
}

function closeHour(volume: Volume, hour: number): void {
  if (hour <= volume.hour) return;
  if (volume.total > 0) teach(volume, volume.total, volume.hour);
  volume.hour = hour;
  volume.total = 0;
}

function teach(volume: Volume, amount: number, hour: number): void {
  const most =
    volume.past.length < caps.hours / 4 ? mostAmount : teachesAtMost * usualAmount(volume, 1);
  volume.past.push(Math.floor(Math.min(amount, most)));
  if (volume.past.length > caps.hours) volume.past.shift();
  const day = Math.floor(hour / hoursPerDay);
  if (day > volume.lastDay || volume.days === 0) {
    volume.days = Math.min(volume.days + 1, caps.days);
    volume.lastDay = Math.max(day, volume.lastDay);
  }
}

/** 0 up to `from` times the usual, `points` at `to` times, in equal steps for equal factors; at most `most`. */
export function pointsOfRatio(
  ratio: number,
  scale: {
    readonly from: number;
    readonly to: number;
    readonly points: number;
    readonly most: number;
  },
): number {
  if (!(ratio > scale.from)) return 0;
  const steps = Math.log(ratio / scale.from) / Math.log(scale.to / scale.from);
  return Math.min(scale.most, steps * scale.points);
}
