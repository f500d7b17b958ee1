import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import test from 'ava';
import {
  enrolmentProofSchema,
  newId,
  rawPublicKey,
  renewalProofSchema,
  signingKey,
  signStatement,
  type EnrolRequest,
} from '../../../../protocol/index.ts';
import {
  readRenewalClaim,
  verifyEnrolmentProof,
  verifyRenewalProof,
} from '../../../../relay/control-plane/devices/index.ts';

const digest = (data: string | Uint8Array) => createHash('sha256').update(data).digest('base64url');
const newPair = () => signingKey(generateKeyPairSync('ed25519').privateKey);
const rawText = (pair: ReturnType<typeof newPair>) =>
  rawPublicKey(pair.privateKey).toString('base64url');

function enrolment(pair = newPair()): EnrolRequest {
  const secret = randomBytes(16);
  const noiseKey = rawPublicKey(generateKeyPairSync('x25519').publicKey).toString('base64url');
  const certificateRequest = 'a request';
  return {
    secret: secret.toString('base64url'),
    certificateRequest,
    signingKey: rawText(pair),
    noiseKey,
    proof: signStatement(
      'enrolment',
      enrolmentProofSchema,
      { secretDigest: digest(secret), requestDigest: digest(certificateRequest), noiseKey },
      pair,
    ),
    hostname: 'laptop',
    platform: 'linux',
    password: null,
  };
}

test('verifyEnrolmentProof - takes what the named key has signed', (t) => {
  t.notThrows(() => verifyEnrolmentProof(enrolment()));
});

test('verifyEnrolmentProof - refuses a proof for another request, key, code or signer', (t) => {
  const request = enrolment();
  const other = enrolment();
  for (const member of [
    'secret',
    'certificateRequest',
    'signingKey',
    'noiseKey',
    'proof',
  ] as const) {
    const changed = { ...request, [member]: member === 'certificateRequest' ? 'x' : other[member] };
    t.throws(() => verifyEnrolmentProof(changed), { code: 'ERR_STATEMENT_REFUSED' }, member);
  }
});

test('verifyEnrolmentProof - refuses weak keys before it looks at the proof', (t) => {
  const zeros = Buffer.alloc(32).toString('base64url');
  const refused = { code: 'ERR_IDENTITY_KEY_REFUSED' };
  t.throws(() => verifyEnrolmentProof({ ...enrolment(), signingKey: zeros }), refused);
  t.throws(() => verifyEnrolmentProof({ ...enrolment(), noiseKey: zeros }), refused);
});

test('verifyRenewalProof - takes the enrolled key for its own id and request alone', (t) => {
  const pair = newPair();
  const id = newId('device');
  const renewal = (as: string, request: string, by = pair) => ({
    certificateRequest: 'a request',
    proof: signStatement(
      'renewal',
      renewalProofSchema,
      { id: as as typeof id, requestDigest: digest(request), madeAtMs: 1 },
      by,
    ),
  });
  const enrolled = { id, signingKey: rawText(pair) };
  const good = renewal(id, 'a request');
  t.is(readRenewalClaim(good.proof), id);
  t.notThrows(() => verifyRenewalProof(good, enrolled));
  for (const bad of [
    renewal(newId('device'), 'a request'),
    renewal(id, 'another'),
    renewal(id, 'a request', newPair()),
  ]) {
    t.throws(() => verifyRenewalProof(bad, enrolled), { code: 'ERR_STATEMENT_REFUSED' });
  }
  t.is(readRenewalClaim('renewal.x.y.z'), undefined);
});
