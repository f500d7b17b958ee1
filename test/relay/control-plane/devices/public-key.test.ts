import { generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import { rawPublicKey } from '../../../../protocol/index.ts';
import { checkNoiseKey, checkSigningKey } from '../../../../relay/control-plane/devices/index.ts';

const refused = { code: 'ERR_IDENTITY_KEY_REFUSED' };

/** Every encoding of a point of small order on Ed25519, canonical or not. */
const smallOrder = [
  '0100000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000080',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0000000000000000000000000000000000000000000000000000000000000080',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
];

/** Points of X25519 with which every exchange ends in zeros. */
const lowOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
];

test('checkSigningKey - takes real keys', (t) => {
  for (let i = 0; i < 20; i++) {
    const { publicKey } = generateKeyPairSync('ed25519');
    t.notThrows(() => checkSigningKey(rawPublicKey(publicKey)));
  }
});

test('checkSigningKey - refuses points of small order and encodings that are not canonical', (t) => {
  for (const hex of smallOrder) {
    t.throws(() => checkSigningKey(Buffer.from(hex, 'hex')), refused, hex);
  }
  t.throws(() => checkSigningKey(Buffer.alloc(31, 7)), refused);
});

test('checkNoiseKey - takes real keys', (t) => {
  const { publicKey } = generateKeyPairSync('x25519');
  t.notThrows(() => checkNoiseKey(rawPublicKey(publicKey)));
});

test('checkNoiseKey - refuses points of low order and their second spelling', (t) => {
  for (const hex of lowOrder) {
    const raw = Buffer.from(hex, 'hex');
    t.throws(() => checkNoiseKey(raw), refused, hex);
    raw[31] = (raw[31] ?? 0) | 0x80;
    t.throws(() => checkNoiseKey(raw), refused, hex);
  }
  t.throws(() => checkNoiseKey(Buffer.alloc(33, 9)), refused);
});
