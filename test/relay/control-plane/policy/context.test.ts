import test from 'ava';
import {
  isExtraCheckName,
  timeFacts,
  unknownPosture,
  versionBuild,
  versionNumber,
} from '../../../../relay/control-plane/policy/index.ts';

test('versionNumber - orders versions as people do, and unknown ones last', (t) => {
  const ordered = [
    'unknown',
    '9',
    '10',
    '10.0.22631',
    '14.4.99',
    '14.5',
    '14.5.1',
    '14.10.0',
    '22.04',
  ];
  const numbers = ordered.map(versionNumber);
  t.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  t.is(new Set(numbers).size, ordered.length);
  t.is(versionNumber('14.5.1'), 14_005_001);
  t.is(versionNumber('14.5.1-rc2 (x)'), 14_005_001);
  t.is(versionNumber(''), 0);
  t.true(Number.isSafeInteger(versionNumber('999999999.999999999.999999999')));
  t.is(versionBuild('10.0.22631'), 22_631);
  t.is(versionBuild('14'), 0);
});

test('timeFacts - takes an instant apart in its zone', (t) => {
  const atMs = Date.UTC(2026, 10, 22, 23, 30); // a Sunday
  t.deepEqual(timeFacts(atMs), {
    epoch_seconds: atMs / 1000,
    date: '2026-11-22',
    hour: 23,
    minute: 30,
    weekday: 7,
  });
  t.like(timeFacts(atMs, 'Europe/Berlin'), { date: '2026-11-23', hour: 0, weekday: 1 });
  t.throws(() => timeFacts(atMs, 'Nowhere/Land'), { instanceOf: RangeError });
});

test('unknownPosture - passes no check', (t) => {
  const { edr, ...facts } = unknownPosture(['edr']);
  t.is(edr, 'unknown');
  t.false(Object.values(facts).includes('on'));
  t.is(facts.os_version_number, 0);
  t.true(facts.age_seconds > 365 * 86_400);
});

test('isExtraCheckName - takes plain words that are free', (t) => {
  for (const name of ['edr', 'corp_file', 'a1']) t.true(isExtraCheckName(name), name);
  for (const name of [
    '',
    'firewall',
    'os_version',
    'Edr',
    '1a',
    'a-b',
    '__proto__',
    'x'.repeat(33),
  ]) {
    t.false(isExtraCheckName(name), name);
  }
});
