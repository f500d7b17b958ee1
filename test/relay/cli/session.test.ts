import test from 'ava';
import { ageText } from '../../../relay/cli/session.ts';

for (const [seconds, text] of [
  [0, '0s'],
  [59, '59s'],
  [60, '1m'],
  [3_599, '59m'],
  [3_600, '1h'],
  [172_799, '47h'],
  [172_800, '2d'],
] as const) {
  test(`session list - an age of ${String(seconds)} seconds is ${text}`, (t) => {
    t.is(ageText(seconds), text);
  });
}
