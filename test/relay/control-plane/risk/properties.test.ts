import test from 'ava';
import fc from 'fast-check';
import { RiskProfile, type RiskEvent } from '../../../../relay/control-plane/risk/index.ts';
import { addressKey, parseRiskEvent } from '../../../../relay/control-plane/risk/event.ts';
import { afterMs, event, officeWorker } from './history.ts';

const kinds = ['sign_in', 'sign_in_refused', 'connect', 'resume', 'denied', 'bytes'] as const;
const hostileNumber = fc.oneof(
  fc.double(),
  fc.constantFrom(Number.NaN, Infinity, -Infinity, -0, -1, 2 ** 53, 8.64e15),
);
const hostileText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('__proto__', '', '"'.repeat(500), '\ud800'.repeat(300), '::ffff:1.2.3.4', '1::'),
  fc.constant(null),
);
const place = fc.option(
  fc.record({
    country: hostileText,
    network: fc.option(hostileNumber),
    latitude: fc.option(hostileNumber),
    longitude: fc.option(hostileNumber),
  }),
);

/** Events of the right shape with any values, most of them in a span of some months. */
const anyEvent: fc.Arbitrary<RiskEvent> = fc.record({
  kind: fc.constantFrom(...kinds),
  atMs: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: afterMs, max: afterMs + 1e10 }) },
    { weight: 1, arbitrary: hostileNumber },
  ),
  user: fc.constant('ada'),
  device: hostileText,
  app: hostileText,
  address: fc.oneof(hostileText, fc.ipV4(), fc.ipV6()),
  place,
  bytesOut: hostileNumber,
  spanMs: hostileNumber,
});

test('profile - takes any events, and its score is a whole number from 0 to 100', (t) => {
  fc.assert(
    fc.property(
      fc.array(anyEvent, { maxLength: 60 }),
      hostileNumber,
      hostileText,
      (events, nowMs, app) => {
        const profile = officeWorker();
        for (const each of events) {
          for (const { points } of profile.learn(each)) t.true(points >= 1 && points <= 100);
          profile.signal({ id: String(each.app), points: nowMs, untilMs: each.atMs, detail: '' });
        }
        for (const atMs of [nowMs, afterMs + 1e10]) {
          const { score, contributions } = profile.assess(atMs, app);
          t.true(Number.isSafeInteger(score) && score >= 0 && score <= 100);
          const sum = contributions.reduce((total, { points }) => total + points, 0);
          t.is(score, Math.min(100, sum));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('profile - its JSON text is all of it', (t) => {
  fc.assert(
    fc.property(
      fc.array(anyEvent, { maxLength: 40 }),
      fc.array(anyEvent, { maxLength: 5 }),
      (before, after) => {
        const profile = officeWorker();
        for (const each of before) profile.learn(each);
        const copy = RiskProfile.fromJson(profile.toJson());
        t.is(copy?.toJson(), profile.toJson());
        for (const each of after) t.deepEqual(copy?.learn(each), profile.learn(each));
        t.deepEqual(copy?.assess(afterMs + 1e9), profile.assess(afterMs + 1e9));
      },
    ),
    { numRuns: 60 },
  );
});

test('profile - more bytes never score less', (t) => {
  const amount = fc.integer({ min: 0, max: 2 ** 45 });
  const span = fc.integer({ min: 0, max: 1e9 });
  fc.assert(
    fc.property(amount, amount, span, fc.constantFrom('wiki', 'vault'), (a, b, spanMs, app) => {
      const scoreOf = (bytesOut: number) => {
        const profile = officeWorker();
        profile.learn(event({ kind: 'bytes', atMs: afterMs, app, bytesOut, spanMs }));
        return profile.assess(afterMs, app).score;
      };
      t.true(scoreOf(Math.min(a, b)) <= scoreOf(Math.max(a, b)));
    }),
  );
});

test('profile - without anything new a score never rises', (t) => {
  const later = fc.array(fc.integer({ min: 0, max: 1e10 }), { maxLength: 6 });
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 20 }), later, (events, delays) => {
      const profile = officeWorker();
      for (const each of events) profile.learn(each);
      const scores = delays.sort((a, b) => a - b).map((ms) => profile.assess(afterMs + ms).score);
      t.deepEqual(
        scores,
        scores.toSorted((a, b) => b - a),
      );
    }),
    { numRuns: 60 },
  );
});

test('profile - stays small whatever it is fed', (t) => {
  const profile = new RiskProfile();
  for (let i = 0; i < 20_000; i++) {
    const name = `"é\n${i}`.padEnd(300, '\u{1f600}');
    profile.learn({
      kind: kinds[i % kinds.length] ?? 'bytes',
      atMs: afterMs + i * 600_000,
      user: 'ada',
      device: name,
      app: name,
      address: `2001:db8:${(i % 65_536).toString(16)}::1`,
      place: { country: name, network: i, latitude: (i % 180) - 90, longitude: i % 180 },
      bytesOut: 2 ** 52,
      spanMs: 1,
    });
    profile.signal({ id: name, points: 100, untilMs: 8.64e15, detail: name });
  }
  t.true(profile.toJson().length < 65_536, String(profile.toJson().length));
  t.truthy(RiskProfile.fromJson(profile.toJson()));
});

test('profile - is none where the text is not one that a profile gave', (t) => {
  const json = officeWorker().toJson();
  for (const text of [
    '',
    '{}',
    'null',
    json.slice(1),
    json.replace('"version":1', '"version":2'),
  ]) {
    t.is(RiskProfile.fromJson(text), undefined);
  }
  t.is(RiskProfile.fromJson(json.replace('"events":', '"events":-')), undefined);
  fc.assert(
    fc.property(fc.json(), (text) => {
      t.is(RiskProfile.fromJson(text), undefined);
    }),
  );
});

test('addressKey - is the address, of IPv6 its first half', (t) => {
  t.is(addressKey('203.0.113.7'), '203.0.113.7');
  t.is(addressKey('::ffff:203.0.113.7'), '203.0.113.7');
  t.is(addressKey('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
  t.is(addressKey('2001:DB8::6'), '2001:db8:0:0::/64');
  t.is(addressKey('::1'), '0:0:0:0::/64');
  t.is(addressKey('fe80::1%eth0'), 'fe80:0:0:0::/64');
  t.is(addressKey('localhost'), undefined);
  fc.assert(
    fc.property(fc.ipV6(), (address) => {
      t.regex(addressKey(address) ?? '', /^(?:[0-9a-f]{1,4}:){4}:\/64$|^\d+\.\d+\.\d+\.\d+$/);
    }),
  );
});

test('parseRiskEvent - takes what is told in full or in part, and nothing else', (t) => {
  t.deepEqual(parseRiskEvent({ kind: 'connect', atMs: 5, user: 'ada', place: { country: 'DE' } }), {
    kind: 'connect',
    atMs: 5,
    user: 'ada',
    device: null,
    app: null,
    address: null,
    place: { country: 'DE', network: null, latitude: null, longitude: null },
  });
  for (const wrong of [
    null,
    { kind: 'connect', atMs: 5 },
    { kind: 'connect', atMs: 0.5, user: 'ada' },
    { kind: 'connect', atMs: 5, user: 'ada', bytesOut: 1 },
    { kind: 'bytes', atMs: 5, user: 'ada' },
    { kind: 'explode', atMs: 5, user: 'ada' },
    { kind: 'connect', atMs: 5, user: 'ada', place: { latitude: 91 } },
  ]) {
    t.is(parseRiskEvent(wrong), undefined, JSON.stringify(wrong));
  }
  fc.assert(
    fc.property(fc.anything(), (value) => {
      t.is(parseRiskEvent(value), undefined);
    }),
  );
});
