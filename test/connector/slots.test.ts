import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { encodeMessage, newId, toSlot, ZtnaError, type ToSlot } from '../../protocol/index.ts';
import { createLogger } from '../../protocol/host/index.ts';
import { Slots, type SlotsOptions } from '../../connector/slots.ts';

const quiet = createLogger({ program: 'test', write: () => undefined });

/** Plain WebSockets: what a slot does does not depend on TLS. */
async function relayOf(t: ExecutionContext) {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sockets = new WebSocketServer({ server });
  const { port } = server.address() as AddressInfo;
  const accepted: WebSocket[] = [];
  const waiting: (() => void)[] = [];
  sockets.on('connection', (socket) => {
    accepted.push(socket);
    waiting.splice(0).forEach((wake) => {
      wake();
    });
  });
  const until = async (count: number) => {
    while (accepted.length < count) {
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    return accepted[count - 1] ?? t.fail();
  };
  const dial = async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}`);
    await once(socket, 'open');
    return socket;
  };
  t.teardown(() => {
    for (const socket of accepted) socket.terminate();
    sockets.close();
    server.close();
  });
  return { accepted, until, dial };
}

function keep(t: ExecutionContext, options: Pick<SlotsOptions, 'dial'> & Partial<SlotsOptions>) {
  const full = Promise.withResolvers<undefined>();
  const slots: Slots = new Slots({
    relay: newId('relay'),
    count: 2,
    onAssign: () => undefined,
    onChange: () => {
      queueMicrotask(() => {
        if (slots.isFull) full.resolve(undefined);
      });
    },
    logger: quiet,
    ...options,
  });
  t.teardown(() => {
    slots.stop();
  });
  return { slots, full: full.promise };
}

const assignment: ToSlot = { type: 'assign', tunnel: newId('tunnel'), grant: 'grant.x.y.z' };

test('Slots - hands over the socket that was assigned and dials another', async (t) => {
  const relay = await relayOf(t);
  const assigned = Promise.withResolvers<ToSlot>();
  const { full, slots } = keep(t, {
    dial: relay.dial,
    onAssign: (_socket, assign) => {
      assigned.resolve(assign);
    },
  });
  await full;
  relay.accepted[0]?.send(encodeMessage(toSlot, assignment));
  t.deepEqual(await assigned.promise, assignment);
  await relay.until(3);
  slots.stop();
  t.is(slots.idleCount, 0);
});

test('Slots - dials twice as many ahead once all are used up, and never more than it was told to keep', async (t) => {
  const relay = await relayOf(t);
  const { full, slots } = keep(t, { dial: relay.dial, count: 1 });
  await full;
  const first = relay.accepted[0] ?? t.fail();
  first.send(encodeMessage(toSlot, assignment));
  await relay.until(3);
  slots.shrinkTo(1);
  t.is(slots.count, 1);
  t.true(slots.idleCount <= 1);
});

test('Slots - leaves a socket that was handed over alone when it stops', async (t) => {
  const relay = await relayOf(t);
  const assigned = Promise.withResolvers<WebSocket>();
  const { full, slots } = keep(t, { dial: relay.dial, onAssign: assigned.resolve });
  await full;
  relay.accepted[0]?.send(encodeMessage(toSlot, assignment));
  const socket = await assigned.promise;
  slots.stop();
  await once(relay.accepted[1] ?? t.fail(), 'close');
  t.is(socket.readyState, WebSocket.OPEN);
  socket.terminate();
});

test('Slots - replaces a socket that was lost and one that has grown old', async (t) => {
  const relay = await relayOf(t);
  const { full } = keep(t, { dial: relay.dial, lifetimeMs: 30 });
  await full;
  relay.accepted[0]?.terminate();
  await relay.until(6);
  t.pass();
});

for (const [title, send] of [
  ['a binary message', (socket: WebSocket) => socket.send(Buffer.alloc(48))],
  ['an unknown message', (socket: WebSocket) => socket.send('{"type":"hello"}')],
  ['an oversized message', (socket: WebSocket) => socket.send(`{"type":"${'x'.repeat(9_000)}"}`)],
] as const) {
  test(`Slots - closes an idle socket that brings ${title} and goes on`, async (t) => {
    const relay = await relayOf(t);
    const { full } = keep(t, {
      dial: relay.dial,
      onAssign: () => {
        t.fail('nothing was assigned');
      },
    });
    await full;
    const socket = relay.accepted[0] ?? t.fail();
    send(socket);
    const [code] = (await once(socket, 'close')) as [number];
    t.true(code === 4400 || code === 4413);
    await relay.until(3);
  });
}

test('Slots - tries again after a dial that failed', async (t) => {
  const relay = await relayOf(t);
  let failures = 3;
  const { full } = keep(t, {
    dial: () => {
      if (failures-- > 0) return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
      return relay.dial();
    },
  });
  await full;
  t.is(relay.accepted.length, 2);
});

test('Slots - gives up a socket whose relay has fallen silent, and dials another', async (t) => {
  const relay = await relayOf(t);
  const { full } = keep(t, { dial: relay.dial, liveness: { pingEveryMs: 20, deadAfterMs: 200 } });
  await full;
  const frozen = relay.accepted[0] ?? t.fail();
  frozen.pause(); // it takes nothing more and answers no ping, but stays connected
  await relay.until(3);
  t.is(relay.accepted[1]?.readyState, WebSocket.OPEN);
});

test('Slots - are wedged while they cannot be filled, and no more once they are', async (t) => {
  const relay = await relayOf(t);
  let isRefused = true;
  const tried = Promise.withResolvers<undefined>();
  const { full, slots } = keep(t, {
    wedgedAfterMs: 0,
    dial: () => {
      if (!isRefused) return relay.dial();
      tried.resolve(undefined);
      return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    },
  });
  await tried.promise;
  t.is(slots.state, 'wedged');
  isRefused = false;
  await full;
  t.is(slots.state, 'filled');
});

test('Slots - are filling at first, and stay filled while one that was used is replaced', async (t) => {
  const relay = await relayOf(t);
  const states: string[] = [];
  const assigned = Promise.withResolvers<undefined>();
  const { full, slots } = keep(t, {
    dial: relay.dial,
    onAssign: () => {
      states.push(slots.state);
      assigned.resolve(undefined);
    },
  });
  t.is(slots.state, 'filling');
  await full;
  relay.accepted[0]?.send(encodeMessage(toSlot, assignment));
  await assigned.promise;
  t.deepEqual(states, ['filled']);
});

test('Slots - close the idle ones that are too many when they shrink', async (t) => {
  const relay = await relayOf(t);
  const { full, slots } = keep(t, { dial: relay.dial });
  await full;
  const gone = Promise.race(relay.accepted.map((socket) => once(socket, 'close')));
  slots.shrinkTo(1);
  await gone;
  t.is(slots.idleCount, 1);
  t.is(slots.state, 'filled');
  slots.shrinkTo(0);
  for (const socket of relay.accepted) {
    if (socket.readyState !== WebSocket.CLOSED) await once(socket, 'close');
  }
  t.is(slots.idleCount, 0);
  t.is(relay.accepted.length, 2);
});

test('Slots - dials no more once stopped', async (t) => {
  const relay = await relayOf(t);
  let dials = 0;
  const { slots } = keep(t, {
    dial: async () => {
      dials++;
      return relay.dial();
    },
  });
  slots.stop();
  slots.stop();
  await relay.until(2);
  for (const socket of relay.accepted) await once(socket, 'close');
  t.is(dials, 2);
});
