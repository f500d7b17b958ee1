import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { WebSocket, WebSocketServer } from 'ws';
import { ZtnaError } from '../../../protocol/errors.ts';
import { watchConnection } from '../../../protocol/host/connection-watch.ts';
import { NetworkWatch, type MachineReading } from '../../../protocol/host/network-watch.ts';
import { redialForever, waitToRedial } from '../../../protocol/host/redial.ts';

/** A machine whose clocks and addresses a test sets. */
class FakeMachine {
  monotonicMs = 1_000;
  wallMs = 1_700_000_000_000;
  addresses = ['127.0.0.1', '192.0.2.7', 'fe80::1'];
  readonly events: string[] = [];
  readonly network = new NetworkWatch({ read: () => this.read(), pollMs: 1_000 });

  constructor(t: ExecutionContext) {
    this.network.on('changed', () => this.events.push('changed'));
    this.network.on('woke', (sleptMs) => this.events.push(`woke ${sleptMs}`));
    // The timer is not let run: each test polls by itself.
    t.teardown(this.network.subscribe(() => undefined));
    t.teardown(() => this.network.removeAllListeners());
  }

  read(): MachineReading {
    const { monotonicMs, wallMs, addresses } = this;
    return { clocks: { monotonicMs, wallMs }, addresses };
  }

  pass(monotonicMs: number, wallMs = monotonicMs): void {
    this.monotonicMs += monotonicMs;
    this.wallMs += wallMs;
    this.network.poll();
  }
}

test('NetworkWatch - says nothing while time passes as it should', (t) => {
  const machine = new FakeMachine(t);
  for (let i = 0; i < 5; i++) machine.pass(1_000 + i * 100);
  t.deepEqual(machine.events, []);
});

test('NetworkWatch - sleep shows by the wall clock where the monotonic one stands still', (t) => {
  const machine = new FakeMachine(t);
  machine.pass(1_000, 61_000);
  machine.pass(1_000);
  t.deepEqual(machine.events, ['woke 60000']);
});

test('NetworkWatch - sleep shows by a late timer where the monotonic clock goes on', (t) => {
  const machine = new FakeMachine(t);
  machine.pass(61_000);
  t.deepEqual(machine.events, ['woke 60000']);
});

test('NetworkWatch - a wall clock that is set back is no sleep', (t) => {
  const machine = new FakeMachine(t);
  machine.pass(1_000, -600_000);
  t.deepEqual(machine.events, []);
});

test('NetworkWatch - tells of addresses that come and go, but not of those of one link', (t) => {
  const machine = new FakeMachine(t);
  machine.addresses = ['127.0.0.1', 'fe80::1', '192.0.2.7', 'fe80::2', '169.254.3.4'];
  machine.pass(1_000);
  t.deepEqual(machine.events, []);
  machine.addresses = ['127.0.0.1'];
  machine.pass(1_000);
  machine.addresses = ['127.0.0.1', '2001:db8::7'];
  machine.pass(1_000);
  t.deepEqual(machine.events, ['changed', 'changed']);
});

test('NetworkWatch - knows which addresses are still there', (t) => {
  const { network } = new FakeMachine(t);
  t.true(network.hasAddress('192.0.2.7'));
  t.true(network.hasAddress('::ffff:192.0.2.7'));
  t.true(network.hasAddress('fe80::1%eth0'));
  t.true(network.hasAddress('127.0.0.9'));
  t.false(network.hasAddress('192.0.2.8'));
});

test('NetworkWatch - reads this machine', (t) => {
  const network = new NetworkWatch();
  let events = 0;
  const stop = network.subscribe(() => events++);
  network.poll();
  stop();
  t.is(events, 0);
  t.true(network.hasAddress('127.0.0.1'));
  t.false(network.hasAddress('192.0.2.255'));
});

interface Connection {
  readonly machine: FakeMachine;
  readonly ws: WebSocket;
  readonly server: WebSocket;
  readonly lost: ZtnaError[];
}

async function connect(t: ExecutionContext, autoPong: boolean): Promise<Connection> {
  const machine = new FakeMachine(t);
  const listener = new WebSocketServer({ port: 0, host: '127.0.0.1', autoPong });
  await once(listener, 'listening');
  t.teardown(() => {
    for (const client of listener.clients) client.terminate();
    listener.close();
  });
  const accepted = once(listener, 'connection') as Promise<[WebSocket]>;
  const ws = new WebSocket(`ws://127.0.0.1:${(listener.address() as AddressInfo).port}`);
  await once(ws, 'open');
  const [server] = await accepted;
  const lost: ZtnaError[] = [];
  return { machine, ws, server, lost };
}

/** Pretends that the connection was made from that address. */
function madeFrom(ws: WebSocket, address: string): void {
  const { _socket: socket } = ws as unknown as { readonly _socket: Socket };
  Object.defineProperty(socket, 'localAddress', { value: address });
}

test('watchConnection - one that answers outlasts sleep and a change', async (t) => {
  const { machine, ws, server, lost } = await connect(t, true);
  const { network } = machine;
  watchConnection(ws, (error) => lost.push(error), { network, answerWithinMs: 1_000 });
  const asked = once(server, 'ping');
  const answered = once(ws, 'pong');
  machine.pass(61_000);
  await asked;
  await answered;
  t.deepEqual(machine.events, ['woke 60000']);
  t.deepEqual(lost, []);
});

test('watchConnection - one that does not answer is given up', async (t) => {
  const { machine, ws } = await connect(t, false);
  const { network } = machine;
  const error = await new Promise<ZtnaError>((resolve) => {
    watchConnection(ws, resolve, { network, answerWithinMs: 30 });
    machine.pass(61_000);
  });
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.reason, 'network_silent');
});

test('watchConnection - one whose address is gone is given up at once', async (t) => {
  const { machine, ws, lost } = await connect(t, true);
  madeFrom(ws, '192.0.2.7');
  watchConnection(ws, (error) => lost.push(error), { network: machine.network });
  machine.addresses = ['127.0.0.1', '198.51.100.4'];
  machine.pass(1_000);
  t.deepEqual(
    lost.map(({ reason }) => reason),
    ['address_gone'],
  );
  machine.addresses = ['127.0.0.1'];
  machine.pass(1_000);
  t.is(lost.length, 1);
});

test('watchConnection - an address that was never listed is not missed', async (t) => {
  const { machine, ws, server, lost } = await connect(t, true);
  madeFrom(ws, '203.0.113.9');
  watchConnection(ws, (error) => lost.push(error), { network: machine.network });
  machine.addresses = ['127.0.0.1'];
  const asked = once(server, 'ping');
  machine.pass(1_000);
  await asked;
  t.deepEqual(lost, []);
});

test('watchConnection - one that is held back on this side is not given up', async (t) => {
  const { machine, ws, lost } = await connect(t, false);
  const { network } = machine;
  watchConnection(ws, (error) => lost.push(error), { network, answerWithinMs: 20 });
  ws.pause();
  machine.pass(61_000);
  await new Promise((resolve) => setTimeout(resolve, 60));
  t.deepEqual(lost, []);
});

test('watchConnection - stops with the connection', async (t) => {
  const { machine, ws } = await connect(t, true);
  const before = machine.network.listenerCount('woke');
  watchConnection(ws, () => t.fail(), { network: machine.network });
  t.is(machine.network.listenerCount('woke'), before + 1);
  ws.terminate();
  await once(ws, 'close');
  t.is(machine.network.listenerCount('woke'), before);
});

test('redialForever - a change of the network ends the wait', async (t) => {
  const machine = new FakeMachine(t);
  const controller = new AbortController();
  let dials = 0;
  let announcedMs = 0;
  const startedAtMs = performance.now();
  await redialForever({
    signal: controller.signal,
    network: machine.network,
    baseMs: 60_000_000,
    dial: () => {
      dials += 1;
      if (dials === 20) controller.abort();
      return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    },
    run: () => Promise.resolve(),
    onWaiting: (_error, delayMs) => {
      announcedMs += delayMs;
      setImmediate(() => {
        machine.pass(61_000);
      });
    },
  });
  t.true(performance.now() - startedAtMs < announcedMs);
});

test('redialForever - an attempt that began before the network changed is begun anew', async (t) => {
  const machine = new FakeMachine(t);
  const controller = new AbortController();
  const ended: unknown[] = [];
  await redialForever<string>({
    signal: controller.signal,
    network: machine.network,
    isFatal: () => true,
    dial: async (signal) => {
      if (ended.length > 0) return 'connection';
      const timer = setInterval(() => {
        machine.pass(61_000); // until the attempt is old enough to be given up
      }, 50);
      await once(signal, 'abort');
      clearInterval(timer);
      ended.push((signal.reason as ZtnaError).reason);
      throw signal.reason as ZtnaError;
    },
    run: () => {
      controller.abort();
      return Promise.resolve();
    },
  });
  t.deepEqual(ended, ['network_changed']);
});

test('redialForever - leaves no listener behind', async (t) => {
  const machine = new FakeMachine(t);
  const before = machine.network.listenerCount('changed');
  const controller = new AbortController();
  await redialForever({
    signal: controller.signal,
    network: machine.network,
    dial: () => Promise.resolve('connection'),
    run: () => {
      t.is(machine.network.listenerCount('changed'), before + 1);
      controller.abort();
      return Promise.resolve();
    },
  });
  t.is(machine.network.listenerCount('changed'), before);
});

test('waitToRedial - ends with a change of the network or when its signal aborts', async (t) => {
  const machine = new FakeMachine(t);
  const hourMs = 3_600_000;
  const waiting = waitToRedial(hourMs, new AbortController().signal, machine.network);
  machine.addresses = ['127.0.0.1'];
  machine.pass(1_000);
  await waiting;
  const controller = new AbortController();
  const other = waitToRedial(hourMs, controller.signal, machine.network);
  controller.abort();
  await other;
  await waitToRedial(hourMs, controller.signal, machine.network);
  t.is(machine.network.listenerCount('changed'), 2); // the machine's own
});
