import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLogger } from '../../../../protocol/host/index.ts';
import { PageCertificate } from '../../../../relay/control-plane/listener/page-certificate.ts';
import { TestCa } from '../../../support/pki.ts';

const ca = new TestCa('a public CA');
const usual = ca.issue({ hosts: ['relay.example.com'] });
const otherKeyPem = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  .privateKey.export({ type: 'pkcs8', format: 'pem' })
  .toString();

function files(t: ExecutionContext, certificate: string, key: string) {
  const dir = mkdtempSync(join(tmpdir(), 'ztna-pages-'));
  t.teardown(() => {
    rmSync(dir, { recursive: true });
  });
  const paths = { certFile: join(dir, 'cert.pem'), keyFile: join(dir, 'key.pem') };
  const write = (certificatePem: string, keyPem: string) => {
    writeFileSync(paths.certFile, certificatePem);
    writeFileSync(paths.keyFile, keyPem, { mode: 0o600 });
  };
  write(certificate, key);
  return { ...paths, write };
}

async function opened(
  t: ExecutionContext,
  paths: { readonly certFile: string; readonly keyFile: string },
  host = 'relay.example.com',
) {
  const lines: string[] = [];
  const logger = createLogger({ program: 'test', write: (line) => lines.push(line) });
  const certificate = await PageCertificate.open(paths, host, logger);
  t.teardown(() => {
    certificate.stop();
  });
  const has = (event: string) => lines.some((line) => line.includes(event));
  return { certificate, has };
}

test('PageCertificate - takes a certificate with its chain and key', async (t) => {
  const chain = usual.certificatePem + ca.certificatePem;
  const { certificate, has } = await opened(t, files(t, chain, usual.keyPem));
  t.deepEqual(certificate.pair, { certificatePem: chain, keyPem: usual.keyPem });
  t.false(has('page_certificate'));
});

for (const [what, certificatePem, keyPem] of [
  ['another key', usual.certificatePem, otherKeyPem],
  [
    'a chain that begins with its authority',
    ca.certificatePem + usual.certificatePem,
    usual.keyPem,
  ],
  ['no certificate', 'nothing', usual.keyPem],
  ['no key', usual.certificatePem, 'nothing'],
  ['what is larger than any chain', `${usual.certificatePem}\n${'#'.repeat(70_000)}`, usual.keyPem],
] as const) {
  test(`PageCertificate - refuses ${what}, without a word of the key`, async (t) => {
    const error = await t.throwsAsync(opened(t, files(t, certificatePem, keyPem)), {
      code: 'ERR_CONFIG_INVALID',
    } as never);
    t.notRegex(error.message, /BEGIN|PRIVATE/);
  });
}

test('PageCertificate - refuses a key that everybody may read, and a file that is not there', async (t) => {
  const paths = files(t, usual.certificatePem, usual.keyPem);
  chmodSync(paths.keyFile, 0o644);
  await t.throwsAsync(opened(t, paths), { code: 'ERR_CONFIG_PERMISSIONS' } as never);
  rmSync(paths.keyFile);
  await t.throwsAsync(opened(t, paths), { code: 'ERR_CONFIG_NOT_FOUND' } as never);
});

test('PageCertificate - takes a new pair, and keeps the last one while the files are no pair', async (t) => {
  const paths = files(t, usual.certificatePem, usual.keyPem);
  const { certificate, has } = await opened(t, paths);
  const replaced: string[] = [];
  certificate.onReplaced(({ certificatePem }) => replaced.push(certificatePem));
  await certificate.reload();
  t.deepEqual(replaced, []); // nothing else
  paths.write(usual.certificatePem, otherKeyPem);
  await certificate.reload();
  t.true(has('page_certificate_refused'));
  t.is(certificate.pair.keyPem, usual.keyPem);
  const next = ca.issue({ hosts: ['relay.example.com'] }).certificatePem;
  paths.write(next, usual.keyPem);
  await certificate.reload();
  t.deepEqual(replaced, [next]);
  t.is(certificate.pair.certificatePem, next);
});

test('PageCertificate - warns of one that has run out or is for another name, and starts all the same', async (t) => {
  const old = ca.issue({ hosts: ['127.0.0.1'], notAfter: new Date(Date.now() - 60_000) });
  const expired = await opened(t, files(t, old.certificatePem, old.keyPem), '127.0.0.1');
  t.true(expired.has('page_certificate_expired'));
  t.false(expired.has('page_certificate_other_name'));
  const other = await opened(t, files(t, usual.certificatePem, usual.keyPem), 'vpn.example.com');
  t.true(other.has('page_certificate_other_name'));
});
