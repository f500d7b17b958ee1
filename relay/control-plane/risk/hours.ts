/** The hours of a week, from Monday 00:00 UTC, and in how many weeks each saw the user. */
export type HoursOfWeek = number[];

export const hoursPerWeek = 168;
const hoursPerDay = 24;
const daysPerWeek = 7;
/** The first of January 1970 was a Thursday. */
const thursday = 3;

/** Enough hours to speak of habits. */
const leastHours = 40;
/** When all hours together reach this, each is halved: habits of half a year ago fade. */
const mostHours = 1_024;
const otherDayShare = 0.25;
const neighbourShare = 0.5;
/** This share of all hours around one makes it usual. */
const usualShare = 0.012;

export function noteHour(hours: HoursOfWeek, hour: number): void {
  const slot = slotOf(hour);
  hours[slot] = (hours[slot] ?? 0) + 1;
  if (sum(hours) < mostHours) return;
  for (let i = 0; i < hours.length; i++) hours[i] = Math.floor((hours[i] ?? 0) / 2);
}

/** How unusual an hour is, from 0 to 1: neighbours count half, the same time of other days a quarter. */
export function unusualness(hours: HoursOfWeek, hour: number): number {
  const total = sum(hours);
  if (total < leastHours) return 0;
  const slot = slotOf(hour);
  let support = 0;
  for (let day = 0; day < daysPerWeek; day++) {
    const same = slot + day * hoursPerDay;
    const around = at(hours, same) + neighbourShare * (at(hours, same - 1) + at(hours, same + 1));
    support += (day === 0 ? 1 : otherDayShare) * around;
  }
  return Math.max(0, 1 - support / (total * usualShare));
}

function slotOf(hour: number): number {
  return (hour + thursday * hoursPerDay) % hoursPerWeek;
}

function at(hours: HoursOfWeek, slot: number): number {
  return hours[(slot + hoursPerWeek) % hoursPerWeek] ?? 0;
}

function sum(hours: HoursOfWeek): number {
  return hours.reduce((total, count) => total + count, 0);
}
