import test from 'ava';
import {
  formatAddress,
  isLoopback,
  parseListenAddress,
} from '../../../client/front-end/listen-address.ts';

const good: readonly [text: string, host: string, port: number][] = [
  ['5432', '127.0.0.1', 5432],
  ['0', '127.0.0.1', 0],
  ['127.0.0.2:80', '127.0.0.2', 80],
  ['localhost:80', '127.0.0.1', 80],
  ['[::1]:65535', '::1', 65_535],
  ['10.0.0.1:1', '10.0.0.1', 1],
];
for (const [text, host, port] of good) {
  test(`parseListenAddress - reads ${text}`, (t) => {
    const address = parseListenAddress(text);
    t.deepEqual(address, { host, port });
    t.deepEqual(parseListenAddress(formatAddress(address)), address);
  });
}

for (const text of [
  '',
  ':',
  ':80',
  '65536',
  '-1',
  '1e3',
  '0x50',
  '127.0.0.1',
  '127.1:80',
  '010.0.0.1:80',
  '::1:80',
  '[127.0.0.1]:80',
  'example.com:80',
  '80 ',
  '[::1]',
  'a:b:c',
]) {
  test(`parseListenAddress - refuses “${text}”`, (t) => {
    t.throws(() => parseListenAddress(text), { code: 'ERR_CONFIG_USAGE' });
  });
}

test('isLoopback - is true for this machine alone, however it is written', (t) => {
  for (const host of ['127.0.0.1', '127.255.255.254', '::1']) t.true(isLoopback(host), host);
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '128.0.0.1', 'fe80::1'])
    t.false(isLoopback(host), host);
});
