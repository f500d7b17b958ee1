import { generateKeyPairSync } from 'node:crypto';
import test from 'ava';
import { PostureSender, type PostureSource } from '../../../client/agent/posture-sender.ts';
import { newId, signingKey, type DevicePosture, type FromDevice } from '../../../protocol/index.ts';

const facts: DevicePosture = {
  platform: 'linux',
  osVersion: 'x',
  clientVersion: '1',
  checks: [],
};
/** Longer than any test may take. */
const forEver = 2 ** 31 - 1;

function setUp() {
  const sent: FromDevice[] = [];
  const started: Parameters<PostureSource['start']>[0][] = [];
  const key = signingKey(generateKeyPairSync('ed25519').privateKey);
  const id = newId('device');
  const sender = new PostureSender({
    source: { start: (options) => void started.push(options), stop: () => undefined },
    clock: { nowMs: () => 1_000 },
    device: () => ({ id, key }),
    send: (message) => sent.push(message),
  });
  const ask = (nonce: string) =>
    sender.wanted({ type: 'posture_wanted', nonce, everyMs: 1_000, maxAgeMs: 3_000, checks: [] });
  return { sender, ask, sent, started };
}

test('PostureSender - who waits before the channel asks is told as soon as something was said', async (t) => {
  const { sender, ask, sent, started } = setUp();
  const waiting = sender.said(forEver);
  ask('AAAAAAAAAAAAAAAAAAAAAA');
  started[0]?.onFacts(facts, 0);
  await waiting;
  t.is(sent.length, 1);
});

test('PostureSender - who waits while another channel asks is told with what is said on that one', async (t) => {
  const { sender, ask, sent, started } = setUp();
  ask('AAAAAAAAAAAAAAAAAAAAAA');
  let isTold = false as boolean;
  const waiting = sender.said(forEver).then(() => (isTold = true));
  ask('BBBBBBBBBBBBBBBBBBBBBA');
  started[0]?.onFacts(facts, 0); // for the channel that is gone
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isTold);
  t.is(sent.length, 0);
  started[1]?.onFacts(facts, 0);
  await waiting;
  t.is(sent.length, 1);
});

test('PostureSender - who asks again on a later channel waits again', async (t) => {
  const { sender, ask, started } = setUp();
  ask('AAAAAAAAAAAAAAAAAAAAAA');
  started[0]?.onFacts(facts, 0);
  await sender.said(forEver);
  ask('BBBBBBBBBBBBBBBBBBBBBA');
  let isTold = false as boolean;
  const waiting = sender.said(forEver).then(() => (isTold = true));
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isTold);
  sender.stop();
  await waiting;
});
