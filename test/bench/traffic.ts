import { connect, type Socket } from 'node:net';
import { once } from 'node:events';

/** What one direction of one path moved. */
export interface Moved {
  readonly bytes: number;
  readonly seconds: number;
}

/** Where a path begins. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

const chunk = Buffer.alloc(256 * 1024, 0x5a);

async function dial(at: Endpoint): Promise<Socket> {
  const socket = connect({ ...at, noDelay: true });
  await once(socket, 'connect');
  return socket;
}

/** Sends to the app for `seconds`; the clock stops when the app has told how much it received. */
export async function upload(at: Endpoint, seconds: number): Promise<Moved> {
  const socket = await dial(at);
  const startedAt = performance.now();
  const endAt = startedAt + seconds * 1_000;
  socket.write('U');
  const answer = once(socket, 'data') as Promise<[Buffer]>;
  while (performance.now() < endAt) {
    if (!socket.write(chunk)) await once(socket, 'drain');
  }
  socket.end();
  const [count] = await answer;
  return {
    bytes: Number(count.readBigUInt64BE()),
    seconds: (performance.now() - startedAt) / 1_000,
  };
}

/** Has the app send for `seconds` and reads to the end. */
export async function download(at: Endpoint, seconds: number): Promise<Moved> {
  let bytes = 0;
  const buffer = Buffer.alloc(256 * 1024);
  const startedAt = performance.now();
  const socket = connect({
    ...at,
    noDelay: true,
    // One buffer for the whole download: the generator should cost the machine as little as it can.
    onread: { buffer, callback: (count) => ((bytes += count), true) },
  });
  await once(socket, 'connect');
  const request = Buffer.alloc(9);
  request.write('D');
  request.writeDoubleBE(seconds, 1);
  socket.write(request);
  await once(socket, 'end');
  socket.destroy();
  return { bytes, seconds: (performance.now() - startedAt) / 1_000 };
}

/** Milliseconds from dialling to the first echoed byte. */
export async function firstEchoMs(at: Endpoint): Promise<number> {
  const startedAt = performance.now();
  const socket = connect({ ...at, noDelay: true });
  const echoed = once(socket, 'data');
  socket.write('E!');
  await echoed;
  const elapsed = performance.now() - startedAt;
  socket.destroy();
  return elapsed;
}

/** Milliseconds of one byte's way there and back on a connection that is up: the round trip of the path. */
export async function roundTripMs(at: Endpoint, times: number): Promise<number> {
  const socket = await dial(at);
  socket.write('E.');
  await once(socket, 'data');
  const measured: number[] = [];
  for (let i = 0; i < times; i++) {
    const startedAt = performance.now();
    const echoed = once(socket, 'data');
    socket.write('x');
    await echoed;
    measured.push(performance.now() - startedAt);
  }
  socket.destroy();
  return median(measured);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
