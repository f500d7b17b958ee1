import test from 'ava';
import { isListedAddress, isLoopback } from '../../../protocol/host/no-proxy.ts';
import { describeProxy, proxyFor } from '../../../protocol/host/proxy.ts';

const names = ['HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy', 'NO_PROXY', 'no_proxy'];

function environment(values: Readonly<Record<string, string>>): void {
  for (const name of names) Reflect.deleteProperty(process.env, name);
  Object.assign(process.env, values);
}

const relay = { host: 'relay.example', port: 443 };

function chosen(values: Readonly<Record<string, string>>, address = relay): string | undefined {
  environment(values);
  return proxyFor(address)?.name;
}

test.serial('proxyFor - takes HTTPS_PROXY, else ALL_PROXY, small names first', (t) => {
  t.is(chosen({}), undefined);
  t.is(chosen({ HTTPS_PROXY: 'http://a.example:3128' }), 'http://a.example:3128');
  t.is(
    chosen({ https_proxy: 'http://b.example:1', HTTPS_PROXY: 'http://a.example:2' }),
    'http://b.example:1',
  );
  t.is(chosen({ ALL_PROXY: 'https://c.example' }), 'https://c.example:443');
  t.is(
    chosen({ ALL_PROXY: 'http://c.example', HTTPS_PROXY: 'http://a.example' }),
    'http://a.example:80',
  );
  t.is(chosen({ HTTPS_PROXY: '' }), undefined);
});

test.serial('proxyFor - a proxy without a scheme is spoken to in plain HTTP', (t) => {
  t.is(chosen({ HTTPS_PROXY: 'a.example:3128' }), 'http://a.example:3128');
  t.is(chosen({ HTTPS_PROXY: '[fd00::1]:3128' }), 'http://[fd00::1]:3128');
});

test.serial('proxyFor - never goes to this very machine through a proxy', (t) => {
  for (const host of [
    'localhost',
    'app.localhost',
    '127.0.0.1',
    '127.9.9.9',
    '::1',
    '::ffff:127.0.0.1',
  ]) {
    t.is(chosen({ HTTPS_PROXY: 'http://a.example' }, { host, port: 443 }), undefined, host);
    t.true(isLoopback(host));
  }
  t.false(isLoopback('notlocalhost'));
  t.false(isLoopback('128.0.0.1'));
});

for (const [list, host, isDirect] of [
  ['relay.example', 'relay.example', true],
  ['RELAY.example', 'relay.example', true],
  ['other.example, relay.example', 'relay.example', true],
  ['relay.example:443', 'relay.example', true],
  ['relay.example:8443', 'relay.example', false],
  ['.example', 'relay.example', true],
  ['*.example', 'relay.example', true],
  ['*', 'relay.example', true],
  ['other.example *', 'relay.example', true],
  ['lay.example', 'relay.example', false],
  ['10.1.1.1', '10.1.1.1', true],
  ['10.1.1.1:443', '10.1.1.1', true],
  ['10.1.1.1:80', '10.1.1.1', false],
  ['10.0.0.0/8', '10.1.1.1', true],
  ['10.0.0.0/8', '11.1.1.1', false],
  ['10.0.0.0/8', 'ten.example', false],
  ['10.0.0.0/33', '10.1.1.1', false],
  ['192.168.0.0/16,10.0.0.0/8', '10.1.1.1', true],
  ['0.0.0.0/0', '8.8.8.8', true],
  ['fd00::/8', 'fd12::1', true],
  ['fd00::/8', 'fe12::1', false],
  ['[fd12::1]', 'fd12::1', true],
  ['[fd12::1]:443', 'fd12::1', true],
  ['[fd12::1]:80', 'fd12::1', false],
  ['fd12:0:0::1', 'fd12::1', true],
  ['fd00::/129', 'fd12::1', false],
  ['10.0.0.0/8', '::ffff:10.1.1.1', true],
  ['', '10.1.1.1', false],
] as const) {
  test.serial(
    `proxyFor - NO_PROXY "${list}" ${isDirect ? 'exempts' : 'does not exempt'} ${host}`,
    (t) => {
      const address = { host, port: 443 };
      const proxy = { HTTPS_PROXY: 'http://proxy.example' };
      t.is(chosen({ ...proxy, NO_PROXY: list }, address) === undefined, isDirect);
      t.is(chosen({ ...proxy, no_proxy: list }, address) === undefined, isDirect);
    },
  );
}

test('isListedAddress - is never true for what is no address', (t) => {
  t.false(isListedAddress('relay.example', 'relay.example', 443));
});

for (const value of ['http://user:secret%zz@a.example', 'http://', 'http://a.example:99999']) {
  test.serial(`proxyFor - refuses ${value.replace('secret', '…')} and does not repeat it`, (t) => {
    environment({ HTTPS_PROXY: value });
    const error = t.throws(() => proxyFor(relay), { code: 'ERR_CONFIG_USAGE' });
    t.notRegex(error.message, /secret|99999/);
    t.regex(error.message, /HTTPS_PROXY/);
  });
}

test.serial('proxyFor - names a kind of proxy that is not supported', (t) => {
  environment({ ALL_PROXY: 'socks5://user:secret@a.example:1080' });
  const error = t.throws(() => proxyFor(relay), { code: 'ERR_NETWORK_PROXY' });
  t.regex(error.message, /ALL_PROXY.*socks5/);
  t.notRegex(error.message, /secret/);
});

test.serial('describeProxy - names the proxy and its variable, never the password', (t) => {
  environment({ https_proxy: 'http://user:secret@a.example:3128' });
  t.is(describeProxy('https://relay.example'), 'http://a.example:3128 (https_proxy)');
  environment({ https_proxy: 'http://user:secret@a.example:3128', NO_PROXY: '*' });
  t.is(describeProxy('https://relay.example'), null);
});
