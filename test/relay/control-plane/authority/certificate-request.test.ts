import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import forge from 'node-forge';
import { createCertificateRequest } from '../../../../protocol/host/index.ts';
import {
  maxRequestLength,
  verifyCertificateRequest,
} from '../../../../relay/control-plane/authority/index.ts';

function newKeyPem(modulusLength = 2048, publicExponent = 65_537): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength, publicExponent });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

const keyPem = newKeyPem();
const requestPem = await createCertificateRequest(keyPem);

const toDer = (pem: string) => Buffer.from(forge.pem.decode(pem)[0]!.body, 'binary');
const toPem = (der: Uint8Array, type = 'CERTIFICATE REQUEST') =>
  forge.pem.encode({ type, body: Buffer.from(der).toString('binary') });

const refused = { code: 'ERR_IDENTITY_KEY_REFUSED' };

test('verifyCertificateRequest - gives the key that signed the request', (t) => {
  const { publicKey } = verifyCertificateRequest(requestPem);
  t.true(publicKey.equals(createPublicKey(keyPem)));
});

test('verifyCertificateRequest - refuses a request with any byte changed', (t) => {
  const der = toDer(requestPem);
  for (let at = 0; at < der.length; at++) {
    const changed = Buffer.from(der);
    changed[at] = (changed[at] ?? 0) ^ 0x01;
    t.throws(() => verifyCertificateRequest(toPem(changed)), refused, `byte ${String(at)}`);
  }
});

test('verifyCertificateRequest - refuses someone else’s key under our signature', async (t) => {
  const other = toDer(await createCertificateRequest(newKeyPem()));
  const own = toDer(requestPem);
  t.is(own.length, other.length);
  const signatureBytes = 256;
  const mixed = Buffer.concat([
    other.subarray(0, other.length - signatureBytes),
    own.subarray(own.length - signatureBytes),
  ]);
  t.throws(() => verifyCertificateRequest(toPem(mixed)), { ...refused });
});

test('verifyCertificateRequest - refuses keys that are small, large or of a small exponent', async (t) => {
  for (const pem of [newKeyPem(1024), newKeyPem(2040), newKeyPem(2048, 3)]) {
    const request = await createCertificateRequest(pem);
    t.throws(() => verifyCertificateRequest(request), refused);
  }
});

test('verifyCertificateRequest - refuses other digests than SHA-256', (t) => {
  const key = forge.pki.privateKeyFromPem(keyPem);
  const request = forge.pki.createCertificationRequest();
  request.publicKey = forge.pki.setRsaPublicKey(key.n, key.e);
  request.setSubject([{ name: 'commonName', value: 'x' }]);
  request.sign(key, forge.md.sha1.create());
  const pem = forge.pki.certificationRequestToPem(request);
  t.throws(() => verifyCertificateRequest(pem), refused);
});

test('verifyCertificateRequest - refuses what is no request, or more than one, or too long', (t) => {
  const der = toDer(requestPem);
  const cases = [
    '',
    'nothing',
    toPem(der, 'CERTIFICATE'),
    toPem(der.subarray(0, 100)),
    toPem(Buffer.concat([der, Buffer.alloc(1)])),
    toPem(Buffer.alloc(0)),
    toPem(Buffer.from('3080', 'hex')),
    toPem(Buffer.from('30'.repeat(4_000), 'hex')),
    requestPem + requestPem,
    requestPem + ' '.repeat(maxRequestLength),
  ];
  for (const [index, pem] of cases.entries()) {
    t.throws(() => verifyCertificateRequest(pem), refused, `case ${String(index)}`);
  }
});
