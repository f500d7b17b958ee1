import test from 'ava';
import { RiskProfile, type RiskEvent } from '../../../../relay/control-plane/risk/index.ts';
import {
  afterMs,
  berlin,
  dayMs,
  event,
  hourMs,
  megabyte,
  mondayMs,
  munich,
  officeWorker,
  pointsOf,
  tokyo,
} from './history.ts';

const tenMs = afterMs + 10 * hourMs; // Monday, ten o'clock

test('profile - an ordinary day of an ordinary user scores nothing', (t) => {
  const profile = officeWorker();
  t.true(profile.isWarm);
  t.deepEqual(profile.learn(event({ kind: 'sign_in', atMs: tenMs })), []);
  t.deepEqual(profile.learn(event({ atMs: tenMs })), []);
  t.deepEqual(
    profile.learn(event({ kind: 'bytes', atMs: tenMs, bytesOut: 30 * megabyte, spanMs: 5_000 })),
    [],
  );
  t.deepEqual(profile.assess(tenMs), { score: 0, contributions: [] });
});

test('profile - until it has learned, nothing is unusual', (t) => {
  const profile = new RiskProfile();
  for (let day = 0; day < 4; day++) {
    const atMs = mondayMs + day * dayMs;
    const place = day % 2 === 0 ? berlin : { ...tokyo, latitude: null, longitude: null };
    const device = `dev_${day}`;
    profile.learn(event({ atMs, place, device, address: `203.0.113.${day}` }));
    profile.learn(event({ kind: 'bytes', atMs, bytesOut: 10 ** (day + 6), spanMs: 1 }));
    t.is(profile.assess(atMs).score, 0);
  }
  t.false(profile.isWarm);
});

test('profile - twenty times the usual bytes out reach 80 points at once, in one report or in many', (t) => {
  for (const usual of [10 * megabyte, 300 * megabyte]) {
    const once = officeWorker(usual);
    once.learn(event({ kind: 'bytes', atMs: tenMs, bytesOut: 20 * usual, spanMs: 5_000 }));
    t.true((pointsOf(once, tenMs, 'wiki')['bytes_out'] ?? 0) >= 80);

    const many = officeWorker(usual);
    for (let report = 0; report < 100; report++) {
      const atMs = tenMs + report * 5_000;
      many.learn(event({ kind: 'bytes', atMs, bytesOut: usual / 5, spanMs: 5_000 }));
    }
    t.true(many.assess(tenMs + 500_000, 'wiki').score >= 80);
  }
});

test('profile - a long tunnel that took what is usual in each of its hours is usual', (t) => {
  const profile = officeWorker();
  const bytesOut = 80 * megabyte;
  profile.learn(event({ kind: 'bytes', atMs: tenMs, bytesOut, spanMs: 8 * hourMs }));
  t.is(profile.assess(tenMs).score, 0);
});

test('profile - bytes of an app that the user hardly knows are held against the most usual of the others', (t) => {
  const profile = officeWorker();
  const take = (bytesOut: number) =>
    profile.learn(event({ kind: 'bytes', atMs: tenMs, app: 'vault', bytesOut, spanMs: 5_000 }));
  t.deepEqual(take(40 * megabyte), []);
  t.is(take(160 * megabyte)[0]?.points, 80);
  t.is(pointsOf(profile, tenMs, 'vault')['bytes_out'], 80);
  t.is(pointsOf(profile, tenMs, 'wiki')['bytes_out'], 40);
});

test('profile - a burst does not become the usual', (t) => {
  const profile = officeWorker();
  for (let hour = 0; hour < 3; hour++) {
    const atMs = tenMs + hour * hourMs;
    const raised = profile.learn(
      event({ kind: 'bytes', atMs, bytesOut: 500 * megabyte, spanMs: 5_000 }),
    );
    t.true((raised[0]?.points ?? 0) >= 50, String(hour));
  }
});

test('profile - names a new country, network, address and device, and knows them from then on', (t) => {
  const profile = officeWorker();
  const abroad = { place: tokyo, address: '198.51.100.9', device: 'dev_other' };
  const atMs = tenMs + 2 * dayMs;
  profile.learn(event({ kind: 'sign_in', atMs, ...abroad }));
  t.deepEqual(pointsOf(profile, atMs), {
    new_country: 25,
    new_device: 15,
    new_network: 10,
    new_address: 3,
  });
  t.deepEqual(profile.learn(event({ kind: 'sign_in', atMs: atMs + 1, ...abroad })), []);
});

test('profile - one more new address says little of somebody who has a new one every day', (t) => {
  const profile = new RiskProfile();
  for (let day = 0; day < 25; day++) {
    const atMs = mondayMs + day * dayMs + 10 * hourMs;
    profile.learn(event({ atMs, address: `198.51.100.${day}` }));
  }
  const atMs = mondayMs + 25 * dayMs + 10 * hourMs;
  t.deepEqual(profile.learn(event({ atMs, address: '198.51.100.77' })), []);
});

test('profile - an hour is unusual where the user has never been near it', (t) => {
  const at = (hour: number) => {
    const profile = officeWorker();
    const atMs = afterMs + hour * hourMs;
    profile.learn(event({ atMs }));
    return pointsOf(profile, atMs)['unusual_hour'] ?? 0;
  };
  t.is(at(3), 10);
  t.is(at(10), 0);
  t.true(at(8) < 10); // an hour early
});

test('profile - travel is impossible above an airliner’s speed, and not between places nearby', (t) => {
  const travel = (hours: number, place: RiskEvent['place']) => {
    const profile = officeWorker();
    profile.learn(event({ atMs: tenMs }));
    profile.learn(event({ atMs: tenMs + hours * hourMs, place }));
    return pointsOf(profile, tenMs + hours * hourMs)['impossible_travel'] ?? 0;
  };
  t.is(travel(1, tokyo), 45);
  t.is(travel(9, tokyo), 45);
  t.is(travel(11, tokyo), 0); // 8,900 km
  t.is(travel(0, { ...munich, latitude: 50.5, longitude: 13.4 }), 0); // 220 km
  t.is(travel(0.1, munich), 45);
  t.is(travel(1, munich), 0);
});

test('profile - a familiar way out of a private network is no travel, and makes others less surprising', (t) => {
  const profile = officeWorker();
  const exit = { ...tokyo, network: 64_500 };
  let atMs = tenMs;
  const points: (number | undefined)[] = [];
  for (let day = 0; day < 4; day++) {
    atMs = tenMs + day * dayMs;
    profile.learn(event({ atMs }));
    const raised = profile.learn(event({ atMs: atMs + 60_000, place: exit }));
    points.push(raised.find(({ name }) => name === 'impossible_travel')?.points);
  }
  t.deepEqual(points, [45, 45, undefined, undefined]);
  const elsewhere = { ...tokyo, network: 64_501, latitude: -33, longitude: 151 };
  profile.learn(event({ atMs: atMs + 120_000, place: elsewhere }));
  t.true((pointsOf(profile, atMs + 120_000)['impossible_travel'] ?? 0) < 45);
});

test('profile - counts failed sign-ins together, and little from a device where the user never signed in', (t) => {
  const fail = (device: string, times: number) => {
    const profile = officeWorker();
    for (let i = 0; i < times; i++) {
      profile.learn(event({ kind: 'sign_in_refused', atMs: tenMs + i * 1_000, device, app: null }));
    }
    return pointsOf(profile, tenMs + times * 1_000)['failed_sign_ins'] ?? 0;
  };
  t.is(fail('dev_desk', 3), 0);
  t.is(fail('dev_desk', 5), 16);
  t.is(fail('dev_desk', 30), 40);
  t.is(fail('dev_of_a_colleague', 30), 15);
});

test('profile - a refused sign-in teaches nothing of where the user is', (t) => {
  const profile = officeWorker();
  const thief = { place: tokyo, device: 'dev_thief', address: '198.51.100.9' };
  for (let i = 0; i < 10; i++) {
    profile.learn(event({ kind: 'sign_in_refused', atMs: tenMs + i, ...thief }));
  }
  const raised = profile.learn(event({ kind: 'sign_in', atMs: tenMs + hourMs, ...thief }));
  const names = raised.map(({ name }) => name).sort();
  t.deepEqual(names, ['new_address', 'new_country', 'new_device', 'new_network']);
});

test('profile - denials of many apps weigh more than of one, asked for again and again', (t) => {
  const deny = (app: (i: number) => string) => {
    const profile = officeWorker();
    for (let i = 0; i < 12; i++) {
      profile.learn(event({ kind: 'denied', atMs: tenMs + i * 1_000, app: app(i) }));
    }
    return pointsOf(profile, tenMs + 12_000)['denied_burst'] ?? 0;
  };
  t.is(
    deny(() => 'vault'),
    0,
  );
  t.is(
    deny((i) => `app-${i}`),
    40,
  );
});

test('profile - more apps in a day than ever before, and more connections in an hour, are named', (t) => {
  const profile = officeWorker();
  for (let i = 0; i < 10; i++) profile.learn(event({ atMs: tenMs + i, app: `app-${i}` }));
  t.is(pointsOf(profile, tenMs + 10)['many_apps'], 24); // seven are fine
  for (let i = 0; i < 200; i++) profile.learn(event({ atMs: tenMs + 100 + i }));
  t.is(pointsOf(profile, tenMs + 300)['connection_rate'], 30);
});

test('profile - a score falls again by itself', (t) => {
  const profile = officeWorker();
  profile.learn(event({ kind: 'bytes', atMs: tenMs, bytesOut: 300 * megabyte, spanMs: 5_000 }));
  const scores = [0, 2, 4, 8, 48].map((hours) => profile.assess(tenMs + hours * hourMs).score);
  t.deepEqual(scores, [90, 45, 23, 6, 0]);
});

test('profile - a signal counts whole until its end, and no later one of its source lowers it', (t) => {
  const profile = officeWorker();
  const untilMs = tenMs + hourMs;
  profile.signal({ id: 'idp', points: 60, untilMs, detail: 'risk level high' });
  profile.signal({ id: 'idp', points: 5, untilMs: tenMs, detail: 'risk level low' });
  profile.signal({ id: 'edr', points: 20, untilMs: untilMs + hourMs, detail: 'malware' });
  t.deepEqual(
    profile.assess(untilMs - 1).contributions.map(({ points }) => points),
    [60],
  );
  t.is(profile.assess(untilMs).score, 20);
  t.is(profile.assess(untilMs + hourMs).score, 0);
});
