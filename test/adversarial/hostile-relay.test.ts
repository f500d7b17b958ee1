import { randomBytes } from 'node:crypto';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { newId } from '../../protocol/index.ts';
import { newNoiseKeyPair } from '../../protocol/noise-xk.ts';
import { flipByte } from '../support/authority.ts';
import {
  HostileRelay,
  type Direction,
  type Meddling,
  type Outcome,
} from '../support/hostile-relay.ts';

const test = anyTest as TestFn<{ relay: HostileRelay }>;

test.before(async (t) => {
  t.context.relay = await HostileRelay.start();
});
test.after.always((t) => t.context.relay.stop());

/** Enough for several records each way, and for credit to be given. */
const payload = randomBytes(200_000);

const untouched: Meddling = (_direction, _index, message) => [message];

/** Passes everything but message `index` of one direction, which `change` replaces. */
function only(
  direction: Direction,
  index: number,
  change: (message: Buffer) => readonly (Buffer | string)[],
): Meddling {
  return (at, i, message) => (at === direction && i === index ? change(message) : [message]);
}

/** Nothing but a true beginning came out at either end, and neither local socket was told that this was all. */
function assertCut(t: ExecutionContext, outcome: Outcome, sent: Buffer, what: string): void {
  const { delivered, received, isCleanEnd, client } = outcome;
  t.not(client, 'done', what);
  t.false(isCleanEnd, `${what}: the local socket ended as if the app had finished`);
  t.true(sent.subarray(0, delivered.length).equals(delivered), `${what}: the app got other bytes`);
  t.true(sent.subarray(0, received.length).equals(received), `${what}: others bytes came back`);
}

test.serial('untouched - everything arrives and ends cleanly', async (t) => {
  const outcome = await t.context.relay.run(untouched, payload);
  t.is(outcome.client, 'done');
  t.true(outcome.isCleanEnd);
  t.true(outcome.received.equals(payload));
  t.true(outcome.delivered.equals(payload));
  t.true(outcome.recorded.up.length >= 6);
  t.true(outcome.recorded.down.length >= 6);
});

/** What a relay may try with a record. Handshake messages are first: two upwards, one downwards. */
const tricks: readonly [what: string, apply: (direction: Direction, index: number) => Meddling][] =
  [
    ['drops', (direction, index) => only(direction, index, () => [])],
    ['duplicates', (direction, index) => only(direction, index, (message) => [message, message])],
    ['cuts the end off', (direction, index) => only(direction, index, (m) => [m.subarray(0, -1)])],
    ['lengthens', (direction, index) => only(direction, index, (m) => [Buffer.concat([m, m])])],
    ['empties', (direction, index) => only(direction, index, () => [Buffer.alloc(0)])],
    [
      'replaces with noise',
      (direction, index) => only(direction, index, (m) => [randomBytes(m.length)]),
    ],
    [
      'swaps with the next',
      (direction, index) => {
        let held: Buffer | undefined;
        return (at, i, message) => {
          if (at !== direction) return [message];
          if (i === index) {
            held = message;
            return [];
          }
          return i === index + 1 && held ? [message, held] : [message];
        };
      },
    ],
  ];

for (const [what, apply] of tricks) {
  test.serial(
    `records - the relay ${what} one: ERR_RECORD_TAMPERED, and sockets are reset`,
    async (t) => {
      for (const [direction, first] of [
        ['up', 2],
        ['down', 1],
      ] as const) {
        for (const index of [first, first + 1, first + 3]) {
          const outcome = await t.context.relay.run(apply(direction, index), payload);
          const where = `${direction} ${index}`;
          assertCut(t, outcome, payload, where);
          t.is(outcome.client, 'ERR_RECORD_TAMPERED', where);
          t.deepEqual(outcome.connector, ['ERR_RECORD_TAMPERED'], where);
          const isFirst = direction === 'up' && index === first;
          if (isFirst && what !== 'duplicates') t.is(outcome.dials, 0, where);
        }
      }
    },
  );
}

test.serial('records - one of another tunnel of the same device is refused', async (t) => {
  const { relay } = t.context;
  const { recorded } = await relay.run(untouched, payload);
  for (const [direction, index] of [
    ['up', 2],
    ['up', 4],
    ['down', 1],
    ['down', 3],
  ] as const) {
    const foreign = recorded[direction][index] ?? Buffer.alloc(0);
    const outcome = await relay.run(
      only(direction, index, () => [foreign]),
      payload,
    );
    assertCut(t, outcome, payload, `${direction} ${index}`);
    t.is(outcome.client, 'ERR_RECORD_TAMPERED');
  }
});

test.serial('records - one sent back to its sender is refused', async (t) => {
  let own: Buffer | undefined;
  const outcome = await t.context.relay.run((direction, index, message) => {
    if (direction === 'up' && index === 2) own = message;
    return direction === 'down' && index === 1 && own ? [own] : [message];
  }, payload);
  assertCut(t, outcome, payload, 'reflected');
});

for (const code of [1000, 1001, 4500] as const) {
  test.serial(
    `path - closed by the relay with ${code} in mid-stream, it is a reset, never an end`,
    async (t) => {
      const { relay } = t.context;
      for (const direction of ['up', 'down'] as const) {
        const outcome = await relay.run((at, index, message) => {
          if (at === direction && index >= 4) relay.closePath(code);
          return [message];
        }, payload);
        assertCut(t, outcome, payload, `${direction} ${code}`);
      }
    },
  );
}

test.serial(
  'path - text in the middle of records ends it at whichever end it came to',
  async (t) => {
    for (const [direction, index] of [
      ['up', 0],
      ['up', 1],
      ['up', 2],
      ['down', 0],
      ['down', 1],
    ] as const) {
      const outcome = await t.context.relay.run(
        only(direction, index, (message) => ['{"type":"assign"}', message]),
        payload,
      );
      assertCut(t, outcome, payload, `${direction} ${index}`);
      t.is(outcome.client, 'ERR_MESSAGE_UNEXPECTED', `${direction} ${index}`);
      if (direction === 'up') t.is(outcome.dials, 0, `${direction} ${index}`);
    }
  },
);

test.serial('handshake - a message that never comes ends it in time', async (t) => {
  const relays = await Promise.all([HostileRelay.start(), HostileRelay.start()]);
  const outcomes = await Promise.all([
    relays[0].run(only('up', 0, () => [])),
    relays[1].run(only('down', 0, () => [])),
  ]);
  for (const outcome of outcomes) {
    t.is(outcome.client, 'ERR_HANDSHAKE_TIMEOUT');
    t.deepEqual(outcome.connector, ['ERR_HANDSHAKE_TIMEOUT']);
    t.is(outcome.dials, 0);
  }
  await Promise.all(relays.map((relay) => relay.stop()));
});

test.serial('handshake - anything before or in place of a message fails it', async (t) => {
  for (const [direction, index] of [
    ['up', 0],
    ['up', 1],
    ['down', 0],
  ] as const) {
    for (const change of [
      (message: Buffer) => [randomBytes(message.length), message],
      (message: Buffer) => [Buffer.alloc(0), message],
      (message: Buffer) => [message.subarray(0, -1)],
      (message: Buffer) => [Buffer.concat([message, Buffer.alloc(1)])],
    ]) {
      const outcome = await t.context.relay.run(only(direction, index, change));
      t.is(outcome.client, 'ERR_HANDSHAKE_FAILED', `${direction} ${index}`);
      t.is(outcome.dials, 0);
      t.is(outcome.delivered.length, 0);
    }
  }
});

test.serial('handshake - message 1 sent twice, or in place of message 3, fails it', async (t) => {
  let first: Buffer | undefined;
  const replayed: Meddling = (direction, index, message) => {
    if (direction === 'up' && index === 0) first = message;
    return direction === 'up' && index === 1 && first ? [first] : [message];
  };
  for (const meddle of [only('up', 0, (message) => [message, message]), replayed]) {
    const outcome = await t.context.relay.run(meddle);
    t.is(outcome.client, 'ERR_HANDSHAKE_FAILED');
    t.is(outcome.dials, 0);
  }
});

test.serial('handshake - a connector with another key is not believed', async (t) => {
  const outcome = await t.context.relay.run(untouched, payload, {
    connectorKeys: newNoiseKeyPair(),
  });
  t.is(outcome.client, 'ERR_HANDSHAKE_FAILED');
  t.deepEqual(outcome.connector, ['ERR_HANDSHAKE_FAILED']);
  t.is(outcome.dials, 0);
});

test.serial(
  'handshake - a relay that names another tunnel to the connector is refused',
  async (t) => {
    const outcome = await t.context.relay.run(untouched, payload, { tunnel: newId('tunnel') });
    t.deepEqual(outcome.connector, ['ERR_GRANT_MISMATCH']);
    t.is(outcome.client, 'ERR_GRANT_MISMATCH');
    t.is(outcome.dials, 0);
  },
);

test.serial(
  'replay - a recorded client side fails under its own grant and under another',
  async (t) => {
    const { relay } = t.context;
    const permit = relay.authority.permit();
    const { recorded } = await relay.run(untouched, payload, { permit });
    const replay: Meddling = (direction, index, message) => {
      if (direction === 'down') return [message];
      return index === 0 ? recorded.up : [];
    };
    for (const options of [{ permit }, {}]) {
      const outcome = await relay.run(replay, payload, options);
      t.deepEqual(outcome.connector, ['ERR_HANDSHAKE_FAILED']);
      t.is(outcome.dials, 0);
      t.is(outcome.delivered.length, 0);
    }
    const again = await relay.run(untouched, payload, { permit });
    t.deepEqual(again.connector, ['ERR_GRANT_USED']);
    t.is(again.dials, 0);
  },
);

/** Every message of a small tunnel that is flipped byte by byte, and the code at the end that reads it. */
const flipped: readonly [
  what: string,
  direction: Direction,
  index: number,
  code: string,
  step: number,
][] = [
  ['message 1', 'up', 0, 'ERR_HANDSHAKE_FAILED', 1],
  ['message 2', 'down', 0, 'ERR_HANDSHAKE_FAILED', 1],
  ['message 3', 'up', 1, 'ERR_HANDSHAKE_FAILED', 16], // each of its bytes: in the tests of the handshake
  ['the first record upwards', 'up', 2, 'ERR_RECORD_TAMPERED', 1],
  ['the first record downwards', 'down', 1, 'ERR_RECORD_TAMPERED', 1],
  ['the second record downwards', 'down', 2, 'ERR_RECORD_TAMPERED', 1],
];

for (const [what, direction, index, code, step] of flipped) {
  test.serial(`tamper - any byte of ${what} flipped: ${code}, and nothing comes out`, async (t) => {
    const { relay } = t.context;
    const sent = Buffer.from('hello');
    const { recorded } = await relay.run(untouched, sent);
    const length = recorded[direction][index]?.length ?? 0;
    t.true(length > 16);
    for (let at = 0; at < length; at += step) {
      const outcome = await relay.run(
        only(direction, index, (message) => [
          flipByte(message, at % message.length, 1 << (at % 8)),
        ]),
        sent,
      );
      assertCut(t, outcome, sent, `byte ${at}`);
      t.is(outcome.client, code, `byte ${at}`);
      t.is(outcome.received.length, 0, `byte ${at}`);
      if (direction === 'up') t.is(outcome.dials, 0, `byte ${at}`);
    }
  });
}
