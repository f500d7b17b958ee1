import test from 'ava';
import type { TunnelEvent } from '../../../client/agent/tunnel-event.ts';
import { createReporter } from '../../../client/front-end/tunnel-reporter.ts';

const until = '2030-01-02T03:04:05.000Z';
const events: readonly TunnelEvent[] = [
  { event: 'listening', app: 'wiki', address: '127.0.0.1:5432' },
  { event: 'open', tunnel: 'tun_1', until },
  { event: 'verified', until },
  { event: 'closed', reason: 'user_disabled', code: 'ERR_TUNNEL_REVOKED' },
];

function record(options: { isJson: boolean; isDataTaken: boolean; isTTY?: boolean }): {
  data: string;
  talk: string;
} {
  const written = { data: '', talk: '' };
  const to = (name: 'data' | 'talk') => (text: unknown) => {
    written[name] += String(text);
    return true;
  };
  const reporter = createReporter(options, {
    data: { write: to('data') },
    talk: { write: to('talk'), isTTY: options.isTTY ?? false },
  });
  for (const event of events) reporter.report(event);
  reporter.say('redialling');
  return written;
}

test('createReporter - with --json writes one event per line on standard output and nothing else', (t) => {
  const { data, talk } = record({ isJson: true, isDataTaken: false });
  t.deepEqual(
    data
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
    [...events],
  );
  t.is(talk, '');
});

test('createReporter - without it writes the address alone, first, on standard output', (t) => {
  const { data, talk } = record({ isJson: false, isDataTaken: false });
  t.is(data, '127.0.0.1:5432\n');
  t.regex(talk, /open, until/);
  t.regex(talk, /closed: user_disabled \[ERR_TUNNEL_REVOKED\]/);
  t.notRegex(talk, /^verified/m, 'a log would fill with it');
});

test('createReporter - leaves standard output to the app when it is taken', (t) => {
  for (const isJson of [true, false]) {
    const { data, talk } = record({ isJson, isDataTaken: true, isTTY: true });
    t.is(data, '');
    t.regex(talk, /user_disabled/);
  }
});

test('createReporter - rewrites one line on a terminal and ends it before other text', (t) => {
  const { talk } = record({ isJson: false, isDataTaken: false, isTTY: true });
  t.regex(talk, /\r\u001b\[Kverified, until [0-9:]{8}\nclosed/);
});

test('createReporter - escapes what could move a terminal', (t) => {
  let talk = '';
  const write = (text: unknown) => {
    talk += String(text);
    return true;
  };
  createReporter(
    { isJson: false, isDataTaken: false },
    { data: { write }, talk: { write, isTTY: true } },
  ).say('\u001b[2Jhello');
  t.is(talk, '\\u001b[2Jhello\n');
});
