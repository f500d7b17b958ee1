import type { RiskEvent } from '../../relay/control-plane/risk/index.ts';
import { attackerCities, hourMs, spotIn, type Person } from './risk-corpus.ts';
import type { SeededRandom } from './random.ts';

/** What somebody does who is not the user, or not only: after `last`, an ordinary event of theirs at work. */
export type Attack = (person: Person, last: RiskEvent, random: SeededRandom) => RiskEvent[];

function make(last: RiskEvent, delayMs: number, rest: object): RiskEvent {
  const { user, device, address, place } = last;
  const facts = { user, device, address, place, app: null };
  return { ...facts, ...rest, atMs: Math.round(last.atMs + delayMs) } as RiskEvent;
}

/** The mean of a lognormal amount. */
const usualBytes = ({ habits }: Person, index: number): number => {
  const app = habits.apps[index % habits.apps.length];
  return app ? app.medianBytes * Math.exp(app.deviation ** 2 / 2) : 0;
};

/** Takes so much of an app in ten minutes, told every ten seconds. */
function take(last: RiskEvent, app: string | undefined, bytes: number): RiskEvent[] {
  return Array.from({ length: 60 }, (_, i) =>
    make(last, i * 10_000, {
      kind: 'bytes',
      app,
      bytesOut: Math.round(bytes / 60),
      spanMs: 10_000,
    }),
  );
}

export const attacks: Readonly<Record<string, Attack>> = {
  '20 to 50 times the usual bytes, in ten minutes': (person, last, random) =>
    take(last, person.habits.apps[0]?.app, random.between(20, 50) * usualBytes(person, 0)),

  'four times the usual bytes, each hour for six hours': (person, last) =>
    Array.from({ length: 6 }, (_, i) =>
      make(last, i * hourMs, {
        kind: 'bytes',
        app: person.habits.apps[0]?.app,
        bytesOut: Math.round(4 * usualBytes(person, 0)),
        spanMs: hourMs,
      }),
    ),

  '20 to 50 times the most of any app, from one never used': (person, last, random) => {
    const most = Math.max(...person.habits.apps.map((_, i) => usualBytes(person, i)));
    return [
      make(last, 0, { kind: 'connect', app: 'app-vault' }),
      ...take(last, 'app-vault', random.between(20, 50) * most),
    ];
  },

  'the user’s keys used from another continent within three hours': (person, last, random) => {
    const there = spotIn(random.pick(attackerCities), 2, 77);
    const delayMs = random.between(0.1, 3) * hourMs;
    return [
      make(last, delayMs, { kind: 'sign_in', ...there }),
      ...person.habits.apps
        .slice(0, 3)
        .map(({ app }, i) => make(last, delayMs + i * 60_000, { kind: 'connect', app, ...there })),
    ];
  },

  'the password used on another device, abroad, a day later': (person, last, random) => {
    const there = { ...spotIn(random.pick(attackerCities), 2, 77), device: 'dev_attacker' };
    const delayMs = random.between(20, 30) * hourMs;
    return [
      make(last, delayMs, { kind: 'sign_in', ...there }),
      ...person.habits.apps
        .slice(0, 3)
        .map(({ app }, i) => make(last, delayMs + i * 60_000, { kind: 'connect', app, ...there })),
    ];
  },

  'a program on the user’s device tries 20 apps, most of them denied': (_, last) =>
    Array.from({ length: 20 }, (_item, i) =>
      make(last, i * 10_000, {
        kind: i % 5 === 0 ? 'connect' : 'denied',
        app: `app-internal-${i}`,
      }),
    ),

  'twelve guesses at the password on the user’s device, then the right one': (_, last) => [
    ...Array.from({ length: 12 }, (_item, i) =>
      make(last, i * 20_000, { kind: 'sign_in_refused' }),
    ),
    make(last, 260_000, { kind: 'sign_in' }),
  ],

  'the stolen laptop at night in the same city, used as its owner would': (
    person,
    last,
    random,
  ) => {
    const nightMs = ((27 - ((last.atMs / hourMs) % 24)) % 24) * hourMs;
    const there = spotIn(person.habits.city, 9, random.whole(0, 5_000));
    return [
      make(last, nightMs, { kind: 'sign_in', ...there }),
      make(last, nightMs + 1_000, { kind: 'connect', app: person.habits.apps[0]?.app, ...there }),
    ];
  },
};
