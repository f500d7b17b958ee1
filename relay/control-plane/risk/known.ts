import { keptDays } from './weights.ts';

/** A value that was seen: on which day last, and on how many. */
export type Known = [key: string, lastDay: number, days: number];

/** Notes that `key` was seen; true when it was not known before. The list keeps the `most` seen last. */
export function see(list: Known[], key: string, day: number, most: number): boolean {
  const index = list.findIndex(([known]) => known === key);
  const found = index < 0 ? undefined : list.splice(index, 1)[0];
  const isStale = found !== undefined && day - found[1] > keptDays;
  const entry: Known =
    found === undefined || isStale
      ? [key, day, 1]
      : [key, Math.max(day, found[1]), found[2] + (day > found[1] ? 1 : 0)];
  list.push(entry);
  if (list.length > most) list.shift();
  return found === undefined || isStale;
}

/** True for what was seen on at least two days, lately. */
export function isFamiliar(list: readonly Known[], key: string, day: number): boolean {
  return list.some(
    ([known, lastDay, days]) => known === key && days > 1 && day - lastDay <= keptDays,
  );
}

/**
 * How surprising one more new value is, from 0 to 1, to someone who was seen on `activeDays`: the Good-Turing estimate
 * of meeting something new is the share of what was met only once, and its logarithm is the surprise. Who has another
 * address every day surprises nobody with the next.
 */
export function surpriseOfNew(list: readonly Known[], activeDays: number): number {
  const once = list.filter(([, , days]) => days === 1).length;
  const bits = Math.log2((activeDays + 1) / (once + 0.5));
  return Math.min(1, Math.max(0, bits / 4));
}
