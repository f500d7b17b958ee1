import { createServer, type AddressInfo, type Server } from 'node:net';
import { once } from 'node:events';
import test from 'ava';
import {
  automaticPorts,
  bindFirst,
  candidatePorts,
  maxPortProbes,
  type PortWishes,
} from '../../../client/front-end/port-choice.ts';
import { listenTcp } from '../../../protocol/host/index.ts';

const wishes: PortWishes = {
  profile: 'default',
  app: 'wiki',
  hint: undefined,
  remembered: undefined,
};
const portsOf = (changes: Partial<PortWishes>): number[] =>
  [...candidatePorts({ ...wishes, ...changes })].map(({ port }) => port);

test('candidatePorts - offers the hint, then what was remembered, then automatic ports', (t) => {
  const ports = portsOf({ hint: 5432, remembered: 23_456 });
  t.deepEqual(ports.slice(0, 2), [5432, 23_456]);
  t.is(ports.length, 2 + maxPortProbes);
});

test('candidatePorts - gives an app the same automatic ports each time, other apps and profiles others', (t) => {
  t.deepEqual(portsOf({}), portsOf({}));
  t.notDeepEqual(portsOf({}), portsOf({ app: 'wiki2' }));
  t.notDeepEqual(portsOf({}), portsOf({ profile: 'other' }));
});

test('candidatePorts - keeps automatic ports within their range', (t) => {
  for (let i = 0; i < 200; i++) {
    for (const port of portsOf({ app: `app${i}` })) {
      t.true(port >= automaticPorts.first && port < automaticPorts.first + automaticPorts.count);
    }
  }
});

async function holdPort(t: { teardown(fn: () => void): void }): Promise<number> {
  const server: Server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  return (server.address() as AddressInfo).port;
}

const listen = async (address: { host: string; port: number }) =>
  listenTcp({ ...address, onConnection: () => undefined });

test('bindFirst - passes over a hint that is taken', async (t) => {
  const taken = await holdPort(t);
  const { listener, candidate } = await bindFirst(
    candidatePorts({ ...wishes, app: `test-${process.pid}`, hint: taken }),
    listen,
  );
  t.teardown(() => listener.stop());
  t.is(candidate.from, 'automatic');
  t.is(listener.port, candidate.port);
});

test('bindFirst - says so when every port is taken', async (t) => {
  const busy = async (): Promise<never> => Promise.reject(new Error('busy'));
  await t.throwsAsync(bindFirst(candidatePorts(wishes), busy), { code: 'ERR_CLIENT_PORT_BUSY' });
});
