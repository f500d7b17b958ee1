import test from 'ava';
import { ZtnaError } from '../../protocol/index.ts';
import { formatTarget, isDialable, parseTarget } from '../../connector/target.ts';

for (const [text, host, port] of [
  ['tcp://127.0.0.1:5432', '127.0.0.1', 5432],
  ['tcp://db.internal:1', 'db.internal', 1],
  ['tcp://db.internal.:65535', 'db.internal.', 65_535],
  ['tcp://localhost:80', 'localhost', 80],
  ['tcp://my_host-2:80', 'my_host-2', 80],
  ['tcp://[::1]:22', '::1', 22],
  ['tcp://[fd00::1]:22', 'fd00::1', 22],
] as const) {
  test(`parseTarget - reads ${text} and writes it again`, (t) => {
    const target = parseTarget(text);
    t.deepEqual(target, { kind: 'tcp', host, port });
    t.is(formatTarget(target), text);
  });
}

for (const text of [
  '',
  'tcp:',
  'db:5432',
  'tcp://db',
  'tcp://db:',
  'tcp://db:0',
  'tcp://db:65536',
  'tcp://db:080',
  'tcp://db:80/path',
  'tcp://user@db:80',
  'tcp://db:80?x',
  'tcp://d b:80',
  'tcp://-:80:80',
  'tcp://.db:80',
  'tcp://db..internal:80',
  'tpc://db:80',
  'tcp://127.1:80',
  'tcp://2130706433:80',
  'tcp://0x7f.1:80',
  'tcp://0177.0.0.1:80',
  'tcp://127.0.0.1.:80',
  'tcp://0x7f000001:80',
  'tcp://0.0.0.0:80',
  'tcp://[::]:80',
  'tcp://[::ffff:127.0.0.1]:80',
  'tcp://[::ffff:7f00:1]:80',
  'tcp://[0:0:0:0:0:0:0:1]:80',
  'tcp://[FD00::1]:80',
  'tcp://[fe80::1%eth0]:80',
  'tcp://[127.0.0.1]:80',
  'tcp://[db]:80',
  'tcp://169.254.169.254:80',
  'tcp://[fd00:ec2::254]:80',
]) {
  test(`parseTarget - refuses "${text}"`, (t) => {
    const error = t.throws(() => parseTarget(text), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_INVALID');
    t.truthy(error.hint);
  });
}

for (const text of ['udp://dns:53', 'http://wiki:80', 'https://wiki:443', 'https://wiki']) {
  test(`parseTarget - says that ${text} is not available yet`, (t) => {
    const error = t.throws(() => parseTarget(text), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_NOT_AVAILABLE');
    t.regex(error.message, /^not available yet/);
  });
}

test('parseTarget - tells what an IPv4 address in IPv6 dress should be written as', (t) => {
  const error = t.throws(() => parseTarget('tcp://[::ffff:10.1.2.3]:80'), {
    instanceOf: ZtnaError,
  });
  t.is(error.hint, 'write 10.1.2.3');
});

for (const [address, expected] of [
  ['127.0.0.1', true],
  ['::1', true],
  ['10.0.0.1', true],
  ['169.254.169.254', false],
  ['::ffff:169.254.169.254', false],
  ['::ffff:a9fe:a9fe', false],
  ['fd00:ec2::254', false],
  ['not an address', false],
] as const) {
  test(`isDialable - is ${expected} for ${address}`, (t) => {
    t.is(isDialable(address), expected);
  });
}
