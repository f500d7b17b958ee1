import { rename, writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLogger } from '../../../../protocol/host/index.ts';
import { PlaceFinder } from '../../../../relay/control-plane/risk/place.ts';
import { writeMmdb } from '../../../support/mmdb.ts';
import { temporaryDirectory } from '../fixture.ts';

const berlin = {
  city: { names: { en: 'Berlin' } },
  country: { iso_code: 'DE', names: { en: 'Germany' } },
  location: { latitude: 52.52, longitude: 13.41, accuracy_radius: 20 },
};
const cityFile = writeMmdb('GeoLite2-City', {
  '198.51.100.0/24': berlin,
  '2001:db8::/32': { registered_country: { iso_code: 'JP' } },
  '10.0.0.0/8': berlin,
  '192.0.2.0/25': { country: { iso_code: 'nowhere' }, location: { latitude: 999, longitude: 0.5 } },
  '192.0.2.128/25': { location: { latitude: -33.5, longitude: 151.5 } },
});
const asnFile = writeMmdb('GeoLite2-ASN', {
  '198.51.100.0/25': { autonomous_system_number: 3320, autonomous_system_organization: 'Telekom' },
  '203.0.113.0/24': { autonomous_system_number: 64_500 },
});

async function files(t: ExecutionContext, contents: Record<string, Buffer>) {
  const dir = temporaryDirectory(t);
  for (const [name, bytes] of Object.entries(contents)) await writeFile(join(dir, name), bytes);
  const lines: string[] = [];
  const logger = createLogger({ program: 'test', write: (line) => lines.push(line) });
  return { at: (name: string) => join(dir, name), logger, lines };
}

test('places - come from a city file and a network file, each as far as it knows', async (t) => {
  const { at, logger } = await files(t, { city: cityFile, asn: asnFile });
  const finder = await PlaceFinder.open({ city: at('city'), asn: at('asn') }, logger);
  t.teardown(() => finder.stop());
  t.deepEqual(finder.find('198.51.100.9'), {
    country: 'DE',
    network: 3320,
    latitude: 52.52,
    longitude: 13.41,
  });
  t.deepEqual(finder.find('::ffff:198.51.100.9'), finder.find('198.51.100.9'));
  t.is(finder.find('198.51.100.200')?.network, null);
  t.deepEqual(finder.find('2001:db8:1::5'), {
    country: 'JP',
    network: null,
    latitude: null,
    longitude: null,
  });
  t.deepEqual(finder.find('203.0.113.1'), {
    country: null,
    network: 64_500,
    latitude: null,
    longitude: null,
  });
  t.is(finder.find('192.0.2.200')?.latitude, -33.5);
});

test('places - are null for what is private, unknown, senseless or no address', async (t) => {
  const { at, logger } = await files(t, { city: cityFile });
  const finder = await PlaceFinder.open({ city: at('city'), asn: null }, logger);
  t.teardown(() => finder.stop());
  for (const address of [
    '10.1.2.3',
    '::ffff:10.1.2.3',
    '127.0.0.1',
    '192.168.1.1',
    'fd00::1',
    'fe80::1%eth0',
    '::1',
    '8.8.8.8',
    '2a00::1',
    '192.0.2.1',
    'relay.example.com',
    '',
  ]) {
    t.is(finder.find(address), null, address);
  }
});

test('places - a file that is replaced is read again, and a broken one changes nothing but the log', async (t) => {
  const { at, logger, lines } = await files(t, { city: cityFile });
  const finder = await PlaceFinder.open({ city: at('city'), asn: null }, logger);
  t.teardown(() => finder.stop());
  const moved = writeMmdb('GeoLite2-Country', {
    '198.51.100.0/24': { country: { iso_code: 'FR' } },
  });
  await writeFile(at('next'), moved);
  await rename(at('next'), at('city'));
  await finder.reload();
  t.is(finder.find('198.51.100.9')?.country, 'FR');
  await writeFile(at('city'), 'rubbish');
  await finder.reload();
  t.is(finder.find('198.51.100.9')?.country, 'FR');
  t.regex(lines.at(-1) ?? '', /places_reload_refused/);
});

test('places - a file that is missing, broken or of another kind is told when it is opened', async (t) => {
  const { at, logger } = await files(t, {
    empty: Buffer.alloc(0),
    rubbish: Buffer.from('rubbish'),
    cut: cityFile.subarray(0, cityFile.length / 2),
    headless: cityFile.subarray(cityFile.length / 2),
    packed: gzipSync(cityFile),
    asn: asnFile,
  });
  for (const name of ['missing', 'empty', 'rubbish', 'cut', 'headless', 'packed', 'asn']) {
    const error = await t.throwsAsync(PlaceFinder.open({ city: at(name), asn: null }, logger), {
      code: 'ERR_CONFIG_INVALID',
    });
    t.regex(error.message, /^risk\.geo\.city: .*(MaxMind file|type "GeoLite2-ASN")/, name);
  }
});
