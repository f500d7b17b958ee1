import test from 'ava';
import { mayDial } from '../../../../relay/control-plane/signals/address-rules.ts';
import { fetchOutside } from '../../../../relay/control-plane/signals/outside-fetch.ts';
import { OutsideServer } from './transmitter.ts';

const refused = { code: 'ERR_RELAY_UNAVAILABLE' };

for (const address of [
  ...['10.1.2.3', '127.0.0.1', '172.20.0.1', '192.168.1.1', '100.64.0.1', '::1', 'fd12::1'],
  ...['::ffff:10.0.0.1', '64:ff9b::a00:1', '2002:a00:1::', '2001:0:1::1'],
]) {
  test(`mayDial - ${address} is private and needs a word of the operator`, (t) => {
    t.false(mayDial(address, false));
    t.is(mayDial(address, true), true);
  });
}

for (const address of [
  ...['169.254.169.254', '0.0.0.0', '224.0.0.1', '255.255.255.255', '::', 'fe80::1%eth0'],
  ...['ff02::1', '::ffff:169.254.169.254', '64:ff9b::a9fe:a9fe', 'fd00:ec2::254', 'nonsense'],
]) {
  test(`mayDial - ${address} is never asked`, (t) => {
    t.false(mayDial(address, false));
    t.false(mayDial(address, true));
  });
}

test('mayDial - public addresses may be asked', (t) => {
  for (const address of ['1.1.1.1', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::808:808']) {
    t.true(mayDial(address, false), address);
  }
});

for (const host of [
  ...[
    '127.0.0.1',
    '[::1]',
    '2130706433',
    '0x7f.1',
    '017700000001',
    '[::ffff:127.0.0.1]',
    'localhost',
  ],
]) {
  test(`fetchOutside - refuses a private address written as ${host}`, async (t) => {
    const server = await OutsideServer.start();
    t.teardown(() => server.stop());
    const url = server.url('/jwks', host);
    const error = await t.throwsAsync(
      fetchOutside({ url, method: 'GET', allowPrivate: false, ca: server.caPem }),
      refused,
    );
    t.is((error as { reason?: string } | undefined)?.reason, 'outside_address_refused');
    t.deepEqual(server.requests, []);
  });
}

test('fetchOutside - asks a private address where that is meant', async (t) => {
  const server = await OutsideServer.start((_request, _body, response) => response.end('yes'));
  t.teardown(() => server.stop());
  t.deepEqual(
    await fetchOutside({
      url: server.url('/'),
      method: 'GET',
      allowPrivate: true,
      ca: server.caPem,
    }),
    { status: 200, contentType: '', text: 'yes' },
  );
});

test('fetchOutside - refuses a certificate of an authority that is not trusted', async (t) => {
  const server = await OutsideServer.start();
  t.teardown(() => server.stop());
  await t.throwsAsync(
    fetchOutside({ url: server.url('/'), method: 'GET', allowPrivate: true }),
    refused,
  );
  t.deepEqual(server.requests, []);
});

test('fetchOutside - follows no redirect, to wherever', async (t) => {
  const server = await OutsideServer.start((request, _body, response) => {
    if (request.url === '/secret') response.end('secret');
    else response.writeHead(302, { location: server.url('/secret', '127.0.0.1') }).end();
  });
  t.teardown(() => server.stop());
  const answer = await fetchOutside({
    ...{ url: server.url('/jwks'), method: 'GET', allowPrivate: true, ca: server.caPem },
  });
  t.is(answer.status, 302);
  t.deepEqual(
    server.requests.map(({ url }) => url),
    ['/jwks'],
  );
});

test('fetchOutside - stops reading an answer without end', async (t) => {
  let isCut: () => void = () => undefined;
  const cut = new Promise<void>((resolve) => (isCut = resolve));
  const server = await OutsideServer.start((_request, _body, response) => {
    const chunk = Buffer.alloc(65_536);
    const more = () => {
      while (response.write(chunk));
      response.once('drain', more);
    };
    response.once('close', isCut);
    more();
  });
  t.teardown(() => server.stop());
  const error = await t.throwsAsync(
    fetchOutside({ url: server.url('/'), method: 'GET', allowPrivate: true, ca: server.caPem }),
    refused,
  );
  t.is((error as { reason?: string } | undefined)?.reason, 'outside_too_large');
  await cut;
});

test('fetchOutside - gives up on an answer that comes a byte at a time', async (t) => {
  const server = await OutsideServer.start((_request, _body, response) => {
    const timer = setInterval(() => response.write('x'), 100);
    response.once('close', () => {
      clearInterval(timer);
    });
  });
  t.teardown(() => server.stop());
  const error = await t.throwsAsync(
    fetchOutside({ url: server.url('/'), method: 'GET', allowPrivate: true, ca: server.caPem }),
    refused,
  );
  t.is((error as { reason?: string } | undefined)?.reason, 'outside_timeout');
});

for (const url of ['http://localhost/', 'file:///etc/passwd', 'https://user:secret@host/', 'x']) {
  test(`fetchOutside - refuses ${url}`, async (t) => {
    const error = await t.throwsAsync(fetchOutside({ url, method: 'GET', allowPrivate: true }), {
      code: 'ERR_CONFIG_INVALID',
    });
    t.false(error.message.includes('secret'));
  });
}
