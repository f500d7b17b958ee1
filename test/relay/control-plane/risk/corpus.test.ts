import test from 'ava';
import { measureRisk } from '../../../bench/risk.ts';
import { ordinaryPeople } from '../../../support/risk-corpus.ts';

const options = { users: 10, days: 28, seed: 3 };

test('corpus - is the same for the same seed, and in order of time', (t) => {
  const [first, again] = [...ordinaryPeople({ ...options, users: 2 })].map(({ events }) => events);
  t.deepEqual(
    first,
    [...ordinaryPeople({ ...options, users: 1 })].flatMap(({ events }) => events),
  );
  t.notDeepEqual(first, again);
  t.deepEqual(
    first,
    first?.toSorted((a, b) => a.atMs - b.atMs),
  );
});

test('risk - notices floods of bytes, strange places and scans, and leaves ordinary people in peace', (t) => {
  const { falseAlarms, detections } = measureRisk(options);
  const at50 = falseAlarms.find(({ threshold }) => threshold === 50);
  t.true(at50 && at50.userDays.of > 100);
  t.true(at50 && at50.userDays.count / at50.userDays.of < 0.05);
  for (const name of [
    '20 to 50 times the usual bytes, in ten minutes',
    'the user’s keys used from another continent within three hours',
    'a program on the user’s device tries 20 apps, most of them denied',
  ]) {
    const noticed = detections[name]?.[1];
    t.true(noticed && noticed.count / noticed.of >= 0.8, name);
  }
});
