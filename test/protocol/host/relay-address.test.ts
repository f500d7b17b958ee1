import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { connectAddress, describeAddress } from '../../../protocol/host/relay-address.ts';
import { dialTls } from '../../../protocol/host/tls.ts';

const url = 'https://relay.invalid:8443';

// Each file of tests has an environment of its own; the tests of this one follow each other.
test.afterEach.always(() => {
  delete process.env['ZTNA_RELAY_ADDRESS'];
});

test.serial('connectAddress - is the URL’s own, unless the environment names another', (t) => {
  t.deepEqual(connectAddress('https://[::1]'), { host: '::1', port: 443 });
  for (const [text, host, port] of [
    ['192.0.2.1:99', '192.0.2.1', 99],
    ['[2001:db8::1]:99', '2001:db8::1', 99],
    ['other.example:99', 'other.example', 99],
  ] as const) {
    process.env['ZTNA_RELAY_ADDRESS'] = text;
    t.deepEqual(connectAddress(url), { host, port });
    t.is(
      describeAddress(url).address,
      `${text} (ZTNA_RELAY_ADDRESS, in place of relay.invalid:8443)`,
    );
  }
  for (const text of ['192.0.2.1', ':99', '192.0.2.1:65536', '::1:99']) {
    process.env['ZTNA_RELAY_ADDRESS'] = text;
    t.throws(() => connectAddress(url), { code: 'ERR_CONFIG_USAGE' }, text);
    t.is(describeAddress(url).address, 'relay.invalid:8443');
  }
});

test.serial('dialTls - an error names the address that was really dialled', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  process.env['ZTNA_RELAY_ADDRESS'] = `127.0.0.1:${String(port)}`;
  const error = await t.throwsAsync(dialTls({ url, alpn: 'x', trust: null }), {
    code: 'ERR_RELAY_UNREACHABLE',
  });
  t.true(error.message.startsWith(`nothing listens at 127.0.0.1:${String(port)} (`), error.message);
});
