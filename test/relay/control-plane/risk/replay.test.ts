import { mkdir, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { join } from 'node:path';
import test from 'ava';
import { readLines } from '../../../../relay/cli/read-lines.ts';
import {
  AuditEvents,
  RiskReplay,
  type RiskEvent,
} from '../../../../relay/control-plane/risk/index.ts';
import { writeMmdb } from '../../../support/mmdb.ts';
import { launchers, runProgram } from '../../../support/program.ts';
import { temporaryDirectory } from '../fixture.ts';
import { afterMs, berlin, dayMs, event, hourMs, megabyte, mondayMs } from './history.ts';

type Exported = Parameters<AuditEvents['read']>[0];

/** A record as `audit export` writes it. */
function record(about: Partial<Exported>): Exported {
  return {
    writer: 'cp',
    position: 1,
    atMs: afterMs,
    actor: 'device:dev_desk',
    action: 'decision.made',
    subject: 'dec_1',
    outcome: 'ok',
    ref: null,
    user: 'ada',
    app: 'wiki',
    details: {},
    previous: '0'.repeat(64),
    hash: '0'.repeat(64),
    ...about,
  };
}

const address = '198.51.100.9';
const places = { find: (which: string) => (which === address ? berlin : null) };

test('audit events - are sign-ins, decisions on tunnels, and the bytes of those that ended', (t) => {
  const audit = new AuditEvents(places);
  const kindOf = (about: Partial<Exported>) => audit.read(record(about))?.kind;
  t.deepEqual(audit.read(record({ action: 'session.sign_in', app: null, details: { address } })), {
    kind: 'sign_in',
    atMs: afterMs,
    user: 'ada',
    app: null,
    device: 'dev_desk',
    address,
    place: berlin,
  });
  const refused = { action: 'session.sign_in', outcome: 'refused' } as const;
  t.is(
    kindOf({ ...refused, details: { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' } }),
    'sign_in_refused',
  );
  t.is(kindOf({ ...refused, details: { code: 'ERR_IDENTITY_OTP_NEEDED' } }), undefined);
  t.is(kindOf({ outcome: 'refused', details: { verdict: 'deny' } }), 'denied');
  t.is(kindOf({ details: { verdict: 'allow', reasons: ['ERR_CONNECTOR_OFFLINE'] } }), undefined);
  t.is(kindOf({ details: { tunnel: 'tun_1', address } }), 'connect');
  t.is(kindOf({ details: { tunnel: 'tun_1', generation: 2 } }), 'resume');
  const ended = audit.read(
    record({
      action: 'tunnel.end',
      actor: 'system',
      subject: 'tun_1',
      atMs: afterMs + hourMs,
      details: { reason: 'client_closed', bytesUp: 1, bytesDown: 77 },
    }),
  );
  t.deepEqual(ended, {
    kind: 'bytes',
    atMs: afterMs + hourMs,
    user: 'ada',
    app: 'wiki',
    device: 'dev_desk',
    address: null,
    place: null,
    bytesOut: 77,
    spanMs: hourMs,
  } satisfies RiskEvent);
  t.is(kindOf({ action: 'tunnel.end', subject: 'tun_1', details: { bytesDown: 77 } }), undefined);
  t.is(kindOf({ details: { tunnel: 'tun_2' } }), 'connect');
  const end = { subject: 'tun_2', action: 'tunnel.end', details: { reason: 'interrupted' } };
  t.is(kindOf({ ...end, atMs: afterMs + hourMs }), undefined);
  const bytes = { ...end, action: 'tunnel.bytes', details: { bytesUp: 1, bytesDown: 77 } };
  const told = audit.read(record({ ...bytes, atMs: afterMs + 2 * hourMs }));
  t.is(told?.kind === 'bytes' ? told.spanMs : undefined, hourMs);
  t.is(kindOf(bytes), undefined);
  t.is(kindOf({ action: 'user.add' }), undefined);
  t.is(kindOf({ user: null }), undefined);
  t.is(kindOf({ details: { address: 5 } }), undefined);
});

/** Somebody at work for two weeks, who then takes too much. */
function* history(user: string, bytesAtLast: number): Generator<RiskEvent> {
  for (let day = 0; day < 14; day++) {
    for (let hour = 9; hour < 17; hour++) {
      const atMs = mondayMs + day * dayMs + hour * hourMs;
      yield event({ user, atMs });
      const isLast = day === 13 && hour === 16;
      const bytesOut = isLast ? bytesAtLast : megabyte;
      yield event({ kind: 'bytes', user, atMs: atMs + 1, bytesOut, spanMs: 60_000 });
    }
  }
}

const jsonLines = (events: Iterable<RiskEvent>) =>
  [...events].map((each) => `${JSON.stringify(each)}\n`).join('');

test('replay - counts how often, whom and on how many days a threshold would have met', (t) => {
  const replay = new RiskReplay({ threshold: 60 });
  const crossed = [...history('ada', 40 * megabyte), ...history('bob', megabyte)]
    .map((each) => replay.take(each))
    .filter((moment) => moment?.hasCrossed);
  t.is(crossed.length, 1);
  t.is(crossed[0]?.user, 'ada');
  t.deepEqual(
    crossed[0]?.contributions.map(({ name }) => name),
    ['bytes_out'],
  );
  const { users, userDays, moments, events, learning } = replay.summary();
  t.deepEqual(users, { count: 1, of: 2 });
  t.deepEqual(userDays, { count: 1, of: 18 }); // nine days each, after five of learning
  t.is(moments.count, 1);
  t.is(events, 2 * 14 * 16);
  t.is(learning, 0);
});

test('replay - refuses a line that is neither an event nor a record', (t) => {
  const replay = new RiskReplay();
  for (const line of ['rubbish', '5', 'null', '{"action":"x"}', '{"kind":"connect"}']) {
    t.throws(() => replay.takeLine(line), { code: 'ERR_CONFIG_INVALID' }, line);
  }
});

test('risk replay - prints the score over time, and what a threshold would have met, without a relay', async (t) => {
  const dir = temporaryDirectory(t);
  const file = join(dir, 'events.jsonl');
  await writeFile(file, jsonLines(history('ada', 40 * megabyte)) + jsonLines(history('bob', 1)));
  const run = (...args: string[]) =>
    runProgram(launchers.relay, ['risk', 'replay', ...args, '--dir', join(dir, 'none')]);
  const [shown, json, other] = await Promise.all([
    run(file, '--threshold', '50'),
    run(file, '--json', '--user', 'ada'),
    run(file, '--user', 'bob', '--threshold', '1'),
  ]);
  t.is(shown.code, 0, shown.stderr);
  t.regex(shown.stdout, /^TIME +USER +EVENT +APP +SCORE +WHY\n/);
  t.is(shown.stdout.split('\n').length, 3);
  t.regex(shown.stdout, /ada +bytes +wiki +\d\d +bytes_out \d\d \(wiki: /);
  t.regex(shown.stderr, /reached 50: 1 of \d+ \(0\.\d+ %\) moments after learning/);
  t.regex(shown.stderr, /1 of 2 \(50\.000 %\) users/);
  const lines = json.stdout
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text) as Record<string, unknown>);
  t.is(lines[0]?.['user'], 'ada');
  t.true(Number(lines[0]?.['score']) > 50);
  const { users } = lines.at(-1)?.['summary'] as { users: unknown };
  t.deepEqual(users, { count: 0, of: 1 }); // of those that came to 100
  t.is(other.stdout.split('\n').length, 2);
});

test('risk replay - reads an audit export from a pipe, with the places of relay.yaml', async (t) => {
  const dir = temporaryDirectory(t);
  await mkdir(join(dir, 'geo'));
  const location = { latitude: 52.5, longitude: 13.4 };
  await writeFile(
    join(dir, 'geo', 'city.mmdb'),
    writeMmdb('GeoLite2-City', {
      '198.51.100.0/24': { country: { iso_code: 'DE' }, location },
      '203.0.113.0/24': {
        country: { iso_code: 'JP' },
        location: { latitude: 35.5, longitude: 139.5 },
      },
    }),
  );
  await writeFile(
    join(dir, 'relay.yaml'),
    'url: https://relay.example.com\nrisk: { geo: { city: geo/city.mmdb } }\n',
  );
  const connect = (atMs: number, from: string) =>
    record({ atMs, details: { tunnel: `tun_${atMs}`, address: from } });
  const records = Array.from({ length: 30 }, (_, day) => connect(mondayMs + day * dayMs, address));
  records.push(connect(mondayMs + 29 * dayMs + hourMs, '203.0.113.5'));
  const { code, stdout, stderr } = await runProgram(
    launchers.relay,
    ['risk', 'replay', '-', '--json', '--dir', dir],
    { input: records.map((each) => `${JSON.stringify(each)}\n`).join('') },
  );
  t.is(code, 0, stderr);
  const [moment] = stdout
    .split('\n')
    .map((text) => JSON.parse(text || '{}') as Record<string, unknown>);
  const names = (moment?.['contributions'] as { name: string }[]).map(({ name }) => name);
  t.deepEqual(names, ['impossible_travel', 'new_country', 'new_address']);
});

test('risk replay - names the line, the file or the flag that is wrong', async (t) => {
  const dir = temporaryDirectory(t);
  const file = join(dir, 'events.jsonl');
  await writeFile(file, `${jsonLines([event({ atMs: 1 })])}\n{"kind":"connect"}\n`);
  const run = (...args: string[]) =>
    runProgram(launchers.relay, ['risk', 'replay', ...args, '--dir', join(dir, 'none')]);
  const [line, missing, threshold, geo] = await Promise.all([
    run(file),
    run(join(dir, 'missing')),
    run(file, '--threshold', '500'),
    run(file, '--city', file),
  ]);
  t.is(line.code, 2);
  t.regex(line.stderr, /line 3: this line is neither .*ERR_CONFIG_INVALID/);
  t.is(missing.code, 2);
  t.regex(missing.stderr, /cannot read .*missing/);
  t.is(threshold.code, 2);
  t.is(geo.code, 2);
  t.regex(geo.stderr, /risk\.geo\.city: .* cannot be read as a MaxMind file/);
});

test('readLines - splits wherever the chunks end, and stops at a line without end', async (t) => {
  const read = async (chunks: string[], most = 100) => {
    const lines: string[] = [];
    const stream = Readable.from(chunks.map((chunk) => Buffer.from(chunk)));
    for await (const line of readLines(stream, most)) lines.push(line);
    return lines;
  };
  t.deepEqual(await read(['a\nb', 'c', '\n\nd']), ['a', 'bc', '', 'd']);
  t.deepEqual(await read([]), []);
  await t.throwsAsync(read(['x'.repeat(60), 'x'.repeat(60)]), { code: 'ERR_CONFIG_INVALID' });
});
