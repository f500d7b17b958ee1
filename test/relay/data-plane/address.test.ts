import test from 'ava';
import { limitKeyOf, plainAddress, proxyLine } from '../../../relay/data-plane/address.ts';

test('plainAddress - takes the IPv6 mapping and the zone off', (t) => {
  t.is(plainAddress('::ffff:192.0.2.7'), '192.0.2.7');
  t.is(plainAddress('fe80::1%eth0'), 'fe80::1');
  t.is(plainAddress('2001:db8::1'), '2001:db8::1');
});

test('limitKeyOf - counts an IPv6 network of 64 bits as one stranger', (t) => {
  t.is(limitKeyOf('192.0.2.7'), '192.0.2.7');
  const key = limitKeyOf('2001:db8:1:2:3:4:5:6');
  for (const same of ['2001:db8:1:2::', '2001:0db8:1:2::9', '2001:db8:1:2:ffff::1']) {
    t.is(limitKeyOf(same), key);
  }
  t.not(limitKeyOf('2001:db8:1:3::1'), key);
  t.is(limitKeyOf('::1'), limitKeyOf('0:0:0:0::2'));
  t.is(limitKeyOf('2001::5'), limitKeyOf('2001:0:0:0:1::'));
});

test('proxyLine - names both ends in the family of the client', (t) => {
  const ends = { remotePort: 50_000, localPort: 443 };
  t.is(
    proxyLine({ ...ends, remoteAddress: '192.0.2.7', localAddress: '198.51.100.1' }),
    'PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n',
  );
  t.is(
    proxyLine({ ...ends, remoteAddress: '2001:db8::7', localAddress: '2001:db8::1' }),
    'PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n',
  );
});
