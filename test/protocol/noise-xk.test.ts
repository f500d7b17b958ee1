import { existsSync, readFileSync } from 'node:fs';
import { generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import nacl from 'tweetnacl';
import type { NoiseHash } from '../../protocol/noise-symmetric.ts';
import {
  exportSecret,
  newNoiseKeyPair,
  NoiseInitiator,
  NoiseResponder,
  type NoiseKeyPair,
} from '../../protocol/noise-xk.ts';
import { RecordOpener, RecordSealer } from '../../protocol/record.ts';
import { rawPublicKey, x25519PublicKey } from '../../protocol/statement.ts';
import { flipByte } from '../support/authority.ts';
import { NoiseTwin, twinTranscript } from '../support/noise-twin.ts';
import { x25519Pair } from '../support/raw-key.ts';

interface Vector {
  readonly protocol_name: string;
  readonly init_prologue: string;
  readonly init_static: string;
  readonly init_ephemeral: string;
  readonly init_remote_static: string;
  readonly resp_prologue: string;
  readonly resp_static: string;
  readonly resp_ephemeral: string;
  readonly handshake_hash: string;
  readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
}

const prologue = Buffer.from('prologue');
const payload = Buffer.from('payload');
const unhex = (text: string) => Buffer.from(text, 'hex');

function readVectors(url: URL): Vector[] {
  const { vectors } = JSON.parse(readFileSync(url, 'utf8')) as { vectors: Vector[] };
  return vectors.filter(({ protocol_name }) => protocol_name.startsWith('Noise_XK_25519_AESGCM_'));
}

/** Speaks a vector with both ends and answers everything that went over the wire. */
function speak(vector: Vector) {
  const hash = vector.protocol_name.split('_')[4] as NoiseHash;
  const a = new NoiseInitiator({
    hash,
    prologue: unhex(vector.init_prologue),
    staticKeys: x25519Pair(unhex(vector.init_static)),
    remoteStatic: x25519PublicKey(unhex(vector.init_remote_static)),
    ephemeralForTestsOnly: x25519Pair(unhex(vector.init_ephemeral)),
  });
  const b = new NoiseResponder({
    hash,
    prologue: unhex(vector.resp_prologue),
    staticKeys: x25519Pair(unhex(vector.resp_static)),
    ephemeralForTestsOnly: x25519Pair(unhex(vector.resp_ephemeral)),
  });
  const payloads = vector.messages.map((message) => unhex(message.payload));
  const [p1 = payload, p2 = payload, p3 = payload, ...rest] = payloads;
  const sent: Buffer[] = [];
  const received: Buffer[] = [];
  sent.push(a.writeMessage1(p1));
  received.push(b.readMessage1(sent[0] ?? payload));
  sent.push(b.writeMessage2(p2));
  received.push(a.readMessage2(sent[1] ?? payload));
  sent.push(a.writeMessage3(p3));
  received.push(b.readMessage3(sent[2] ?? payload));
  const atA = a.finish();
  const atB = b.finish();
  const toA = [new RecordSealer(atB.responderKey), new RecordOpener(atA.responderKey)] as const;
  const toB = [new RecordSealer(atA.initiatorKey), new RecordOpener(atB.initiatorKey)] as const;
  rest.forEach((content, index) => {
    const [sealer, opener] = index % 2 === 0 ? toA : toB;
    const record = Buffer.concat(sealer.seal([content]));
    sent.push(record);
    received.push(opener.open(record));
  });
  return { hash, payloads, sent, received, atA, atB };
}

const shared = new URL('../../../shared/vectors/noise-cacophony.json', import.meta.url);
const sources = [
  { name: 'our own table', url: new URL('../vectors/noise-xk.json', import.meta.url), count: 8 },
  { name: 'the cacophony project', url: shared, count: 4 },
];

for (const { name, url, count } of sources) {
  test(`Noise XK - every Noise_XK_25519_AESGCM vector of ${name} is reproduced bit for bit`, (t) => {
    if (!existsSync(url)) {
      t.log(`left out: ${url.pathname} is not here`);
      t.pass();
      return;
    }
    const vectors = readVectors(url);
    t.is(vectors.length, count);
    for (const vector of vectors) {
      const { hash, payloads, sent, received, atA, atB } = speak(vector);
      t.deepEqual(
        sent.map((message) => message.toString('hex')),
        vector.messages.map((message) => message.ciphertext),
      );
      t.deepEqual(received, payloads);
      t.is(atA.handshakeHash.toString('hex'), vector.handshake_hash);
      t.is(atB.handshakeHash.toString('hex'), vector.handshake_hash);
      t.deepEqual(Buffer.from(atB.peerStatic), rawPublicKey(pairOf(vector.init_static).publicKey));
      t.is(Buffer.from(atA.peerStatic).toString('hex'), vector.init_remote_static);
      const twin = twinTranscript({
        hash,
        prologue: unhex(vector.init_prologue),
        initiatorStatic: unhex(vector.init_static),
        initiatorEphemeral: unhex(vector.init_ephemeral),
        responderStatic: unhex(vector.resp_static),
        responderEphemeral: unhex(vector.resp_ephemeral),
        payloads,
      });
      t.deepEqual(sent, twin.messages);
      t.is(twin.handshakeHash.toString('hex'), vector.handshake_hash);
    }
  });
}

function pairOf(hex: string): NoiseKeyPair {
  return x25519Pair(unhex(hex));
}

function newEnds(changes: { initiatorPrologue?: Buffer; believed?: NoiseKeyPair } = {}) {
  const initiatorKeys = newNoiseKeyPair();
  const responderKeys = newNoiseKeyPair();
  const a = new NoiseInitiator({
    prologue: changes.initiatorPrologue ?? prologue,
    staticKeys: initiatorKeys,
    remoteStatic: (changes.believed ?? responderKeys).publicKey,
  });
  const b = new NoiseResponder({ prologue, staticKeys: responderKeys });
  return { a, b, initiatorKeys, responderKeys };
}

test('Noise XK - X25519 agrees with tweetnacl', (t) => {
  const secret = fc.uint8Array({ minLength: 32, maxLength: 32 });
  fc.assert(
    fc.property(secret, secret, (mine, theirs) => {
      const point = nacl.scalarMult.base(theirs);
      t.deepEqual(rawPublicKey(x25519Pair(theirs).publicKey), Buffer.from(point));
      const messages = twinTranscript({
        hash: 'SHA256',
        prologue,
        initiatorStatic: mine,
        initiatorEphemeral: theirs,
        responderStatic: theirs,
        responderEphemeral: mine,
        payloads: [payload, payload, payload],
      }).messages;
      const b = new NoiseResponder({
        prologue,
        staticKeys: x25519Pair(theirs),
        ephemeralForTestsOnly: x25519Pair(mine),
      });
      t.deepEqual(b.readMessage1(messages[0] ?? payload), payload);
      t.deepEqual(b.writeMessage2(payload), messages[1]);
      t.deepEqual(b.readMessage3(messages[2] ?? payload), payload);
      t.deepEqual(Buffer.from(b.finish().peerStatic), Buffer.from(nacl.scalarMult.base(mine)));
    }),
    { numRuns: 25 },
  );
});

test('Noise XK - every byte of every message flipped in turn is refused, and the handshake is over', (t) => {
  const failed = { code: 'ERR_HANDSHAKE_FAILED' };
  const sizes = [48 + payload.length, 48 + payload.length, 64 + payload.length] as const;
  for (let index = 0; index < sizes[0]; index++) {
    const { a, b } = newEnds();
    const message1 = a.writeMessage1(payload);
    t.is(message1.length, sizes[0]);
    t.throws(() => b.readMessage1(flipByte(message1, index, 1 << (index % 8))), failed);
    t.throws(() => b.writeMessage2(payload), { code: 'ERR_INTERNAL' });
    t.throws(() => b.readMessage1(message1), { code: 'ERR_INTERNAL' });
  }
  for (let index = 0; index < sizes[1]; index++) {
    const { a, b } = newEnds();
    b.readMessage1(a.writeMessage1(payload));
    const message2 = b.writeMessage2(payload);
    t.is(message2.length, sizes[1]);
    t.throws(() => a.readMessage2(flipByte(message2, index, 1 << (index % 8))), failed);
    t.throws(() => a.writeMessage3(payload), { code: 'ERR_INTERNAL' });
    t.throws(() => a.readMessage2(message2), { code: 'ERR_INTERNAL' });
  }
  for (let index = 0; index < sizes[2]; index++) {
    const { a, b } = newEnds();
    b.readMessage1(a.writeMessage1(payload));
    a.readMessage2(b.writeMessage2(payload));
    const message3 = a.writeMessage3(payload);
    t.is(message3.length, sizes[2]);
    t.throws(() => b.readMessage3(flipByte(message3, index, 1 << (index % 8))), failed);
    t.throws(() => b.finish(), { code: 'ERR_INTERNAL' });
    t.throws(() => b.readMessage3(message3), { code: 'ERR_INTERNAL' });
  }
});

test('Noise XK - a message cut short or drawn out at any length is refused', (t) => {
  const failed = { code: 'ERR_HANDSHAKE_FAILED' };
  const { a } = newEnds();
  const message1 = a.writeMessage1(payload);
  for (let length = 0; length < message1.length; length++) {
    t.throws(() => newEnds().b.readMessage1(message1.subarray(0, length)), failed);
  }
  for (let length = 0; length < 48; length++) {
    const ends = newEnds();
    ends.b.readMessage1(ends.a.writeMessage1(payload));
    const message2 = ends.b.writeMessage2(Buffer.alloc(0));
    t.throws(() => ends.a.readMessage2(message2.subarray(0, length)), failed);
  }
  for (let length = 0; length < 64; length++) {
    const ends = newEnds();
    ends.b.readMessage1(ends.a.writeMessage1(payload));
    ends.a.readMessage2(ends.b.writeMessage2(payload));
    const message3 = ends.a.writeMessage3(Buffer.alloc(0));
    t.throws(() => ends.b.readMessage3(message3.subarray(0, length)), failed);
  }
  const ends = newEnds();
  const drawnOut = Buffer.concat([ends.a.writeMessage1(payload), Buffer.alloc(1)]);
  t.throws(() => ends.b.readMessage1(drawnOut), failed);
  t.throws(() => newEnds().b.readMessage1(Buffer.alloc(65_536)), failed);
  t.throws(() => newEnds().a.writeMessage1(Buffer.alloc(65_535 - 47)), failed);
  t.is(newEnds().a.writeMessage1(Buffer.alloc(65_535 - 48)).length, 65_535);
});

// Seven points have an order of at most 8; each has two spellings, as X25519 ignores the highest bit. The last five
// are multiples beyond 2^255 of the same, which X25519 takes for other points; they must lead nowhere either.
const lowOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
].map(unhex);
const badPoints = [
  ...lowOrder,
  ...lowOrder.map((point) => flipByte(point, 31, 0x80)),
  ...[
    'cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880',
    '4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7',
    'd9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
    'daffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
    'dbffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  ].map(unhex),
];
const zeros = new Uint8Array(32);

/** A dishonest peer's key: a point without a secret, for which it expects every agreement to give zeros. */
interface Cheat {
  readonly point: Uint8Array;
  agreed(other: Uint8Array): Uint8Array;
}

function cheatWith(point: Uint8Array): Cheat {
  return { point, agreed: () => zeros };
}

/** The control case: the same messages from somebody who has a secret are accepted. */
function honest(): Cheat {
  const secret = nacl.randomBytes(32);
  return {
    point: nacl.scalarMult.base(secret),
    agreed: (other) => nacl.scalarMult(secret, other),
  };
}

function meetInMessage1(cheat: Cheat): void {
  const { b, responderKeys } = newEnds();
  const responderStatic = rawPublicKey(responderKeys.publicKey);
  const twin = new NoiseTwin('SHA256', prologue, responderStatic);
  twin.mixHash(cheat.point);
  twin.mixKey(cheat.agreed(responderStatic)); // es
  b.readMessage1(Buffer.concat([cheat.point, twin.seal(payload)]));
}

function meetInMessage2(cheat: Cheat): void {
  const own = honest();
  const a = new NoiseInitiator({
    prologue,
    staticKeys: newNoiseKeyPair(),
    remoteStatic: x25519PublicKey(own.point),
  });
  const message1 = a.writeMessage1(payload);
  const twin = new NoiseTwin('SHA256', prologue, own.point);
  twin.mixHash(message1.subarray(0, 32));
  twin.mixKey(own.agreed(message1.subarray(0, 32))); // es
  twin.skip(message1.subarray(32));
  twin.mixHash(cheat.point);
  twin.mixKey(cheat.agreed(message1.subarray(0, 32))); // ee
  a.readMessage2(Buffer.concat([cheat.point, twin.seal(payload)]));
}

function meetInMessage3(cheat: Cheat): void {
  const { b, responderKeys } = newEnds();
  const responderStatic = rawPublicKey(responderKeys.publicKey);
  const own = honest();
  const twin = new NoiseTwin('SHA256', prologue, responderStatic);
  twin.mixHash(own.point);
  twin.mixKey(own.agreed(responderStatic)); // es
  b.readMessage1(Buffer.concat([own.point, twin.seal(payload)]));
  const message2 = b.writeMessage2(payload);
  twin.mixHash(message2.subarray(0, 32));
  twin.mixKey(own.agreed(message2.subarray(0, 32))); // ee
  twin.skip(message2.subarray(32));
  const sealedStatic = twin.seal(cheat.point);
  twin.mixKey(cheat.agreed(message2.subarray(0, 32))); // se
  b.readMessage3(Buffer.concat([sealedStatic, twin.seal(payload)]));
}

for (const [index, meet] of [meetInMessage1, meetInMessage2, meetInMessage3].entries()) {
  test(`Noise XK - a point of low order is refused in message ${index + 1}, though all else fits it`, (t) => {
    t.notThrows(() => meet(honest()));
    for (const point of lowOrder) t.deepEqual(nacl.scalarMult(nacl.randomBytes(32), point), zeros);
    for (const point of badPoints) {
      t.throws(() => meet(cheatWith(point)), { code: 'ERR_HANDSHAKE_FAILED' });
    }
  });
}

test('Noise XK - every step is allowed once and in its order', (t) => {
  const misuse = { code: 'ERR_INTERNAL' };
  const initiatorSteps = (a: NoiseInitiator): Record<string, () => unknown> => ({
    writeMessage1: () => a.writeMessage1(payload),
    readMessage2: () => a.readMessage2(Buffer.alloc(64)),
    writeMessage3: () => a.writeMessage3(payload),
    finish: () => a.finish(),
  });
  const responderSteps = (b: NoiseResponder): Record<string, () => unknown> => ({
    readMessage1: () => b.readMessage1(Buffer.alloc(64)),
    writeMessage2: () => b.writeMessage2(payload),
    readMessage3: () => b.readMessage3(Buffer.alloc(96)),
    finish: () => b.finish(),
  });
  const order = {
    a: Object.keys(initiatorSteps(newEnds().a)),
    b: Object.keys(responderSteps(newEnds().b)),
  };
  for (let done = 0; done <= 4; done++) {
    for (let wrong = 0; wrong < 4; wrong++) {
      if (wrong === done) continue;
      const atA = advance(done).a;
      t.throws(() => initiatorSteps(atA)[order.a[wrong] ?? '']?.(), misuse);
      t.throws(() => initiatorSteps(atA)[order.a[done] ?? 'finish']?.(), misuse); // over for good
      const atB = advance(done).b;
      t.throws(() => responderSteps(atB)[order.b[wrong] ?? '']?.(), misuse);
      t.throws(() => responderSteps(atB)[order.b[done] ?? 'finish']?.(), misuse);
    }
  }
});

/** Two ends that have each taken their first `steps` steps. */
function advance(steps: number) {
  const ends = newEnds();
  const { a, b } = ends;
  if (steps > 0) b.readMessage1(a.writeMessage1(payload));
  if (steps > 1) a.readMessage2(b.writeMessage2(payload));
  if (steps > 2) b.readMessage3(a.writeMessage3(payload));
  if (steps > 3) {
    a.finish();
    b.finish();
  }
  return ends;
}

test('Noise XK - a responder with another key, and a middleman, are refused', (t) => {
  const failed = { code: 'ERR_HANDSHAKE_FAILED' };
  const { a, b } = newEnds({ believed: newNoiseKeyPair() });
  t.throws(() => b.readMessage1(a.writeMessage1(payload)), failed);

  // The middleman speaks for the responder with a key of its own.
  const real = newEnds();
  const middle = new NoiseResponder({ prologue, staticKeys: newNoiseKeyPair() });
  t.throws(() => middle.readMessage1(real.a.writeMessage1(payload)), failed);

  // Message 2 of another handshake with the right responder proves nothing.
  const first = newEnds();
  first.b.readMessage1(first.a.writeMessage1(payload));
  const again = new NoiseInitiator({
    prologue,
    staticKeys: first.initiatorKeys,
    remoteStatic: first.responderKeys.publicKey,
  });
  again.writeMessage1(payload);
  t.throws(() => again.readMessage2(first.b.writeMessage2(payload)), failed);
});

test('Noise XK - recorded messages played again to the same responder are refused', (t) => {
  const { a, b, responderKeys } = newEnds();
  const message1 = a.writeMessage1(payload);
  b.readMessage1(message1);
  a.readMessage2(b.writeMessage2(payload));
  const message3 = a.writeMessage3(payload);
  b.readMessage3(message3);
  const again = new NoiseResponder({ prologue, staticKeys: responderKeys });
  again.readMessage1(message1);
  again.writeMessage2(payload);
  t.throws(() => again.readMessage3(message3), { code: 'ERR_HANDSHAKE_FAILED' });
});

test('Noise XK - another prologue is refused at once', (t) => {
  const { a, b } = newEnds({ initiatorPrologue: Buffer.from('Prologue') });
  t.throws(() => b.readMessage1(a.writeMessage1(payload)), { code: 'ERR_HANDSHAKE_FAILED' });
});

test('Noise XK - a key that is not X25519 is refused', (t) => {
  const wrong = generateKeyPairSync('ed25519');
  t.throws(
    () =>
      new NoiseInitiator({
        prologue,
        staticKeys: newNoiseKeyPair(),
        remoteStatic: wrong.publicKey,
      }).writeMessage1(payload),
    { code: 'ERR_HANDSHAKE_FAILED' },
  );
});

test('Noise XK - 1,000 handshakes between the same keys never repeat an ephemeral, a hash or a secret', (t) => {
  const initiatorKeys = newNoiseKeyPair();
  const responderKeys = newNoiseKeyPair();
  const seen = new Set<string>();
  for (let round = 0; round < 1000; round++) {
    const a = new NoiseInitiator({
      prologue,
      staticKeys: initiatorKeys,
      remoteStatic: responderKeys.publicKey,
    });
    const b = new NoiseResponder({ prologue, staticKeys: responderKeys });
    const message1 = a.writeMessage1(Buffer.alloc(0));
    b.readMessage1(message1);
    const message2 = b.writeMessage2(Buffer.alloc(0));
    a.readMessage2(message2);
    const message3 = a.writeMessage3(Buffer.alloc(0));
    b.readMessage3(message3);
    const secrets = a.finish();
    for (const bytes of [
      message1.subarray(0, 32),
      message1.subarray(32),
      message2.subarray(0, 32),
      message2.subarray(32),
      message3.subarray(0, 48),
      message3.subarray(48),
      secrets.handshakeHash,
      secrets.initiatorKey.export(),
      secrets.responderKey.export(),
      exportSecret(secrets, 'resume'),
    ]) {
      seen.add(bytes.toString('hex'));
    }
  }
  t.is(seen.size, 10_000);
});

test('exportSecret - both ends get the same, and each label its own', (t) => {
  const { a, b } = advance(3);
  const atA = a.finish();
  const atB = b.finish();
  const secrets = ['resume', 'resumf', ''].map((label) => exportSecret(atA, label).toString('hex'));
  t.deepEqual(
    secrets,
    ['resume', 'resumf', ''].map((label) => exportSecret(atB, label).toString('hex')),
  );
  const all = [
    ...secrets,
    atA.initiatorKey.export().toString('hex'),
    atA.responderKey.export().toString('hex'),
  ];
  t.is(new Set(all).size, 5);
  const keys = [atA.initiatorKey, atA.responderKey, atA.exporterKey].map((key) =>
    key.export().toString('hex'),
  );
  t.is(new Set(keys).size, 3);
});
