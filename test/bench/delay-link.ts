/**
 * A link in user space for kernels without `netem`: forwards one TCP port to another and hands every chunk on after a
 * fixed delay, in order, both ways.
 *
 * It ends TCP on both sides, so by itself it would hide what a delay does to TCP: no more than one window may be on the
 * way in a round trip. It therefore lets half a window be on its way in each direction, the window being the largest
 * that this kernel gives a connection: the smaller of the last figures of `net.ipv4.tcp_rmem` and `tcp_wmem`.
 *
 *   delay-link.ts DELAY_MS TARGET_PORT     prints its own port
 */
import { readFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

const delayMs = Number(process.argv[2]);
const targetPort = Number(process.argv[3]);

/** Linux's default of `net.ipv4.tcp_wmem`, where it cannot be read. */
const usualWindowBytes = 4_194_304;

function largestWindowBytes(): number {
  const largest = (name: string): number =>
    Number(readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim().split(/\s+/)[2]);
  try {
    return Math.min(largest('tcp_rmem'), largest('tcp_wmem'));
  } catch {
    return usualWindowBytes;
  }
}

const maxInFlightBytes = largestWindowBytes() / 2;

function forward(from: Socket, to: Socket): void {
  const queue: { readonly dueAt: number; readonly data: Buffer | null }[] = [];
  let inFlightBytes = 0;
  let timer: NodeJS.Timeout | undefined;

  const deliver = (): void => {
    timer = undefined;
    const now = performance.now();
    while (queue[0] && queue[0].dueAt <= now + 0.5) {
      const { data } = queue.shift() ?? { data: null };
      if (data === null) {
        to.end();
        continue;
      }
      inFlightBytes -= data.length;
      if (!to.write(data)) {
        to.once('drain', deliver);
        return;
      }
    }
    if (inFlightBytes < maxInFlightBytes && from.isPaused()) from.resume();
    if (queue[0]) timer = setTimeout(deliver, Math.max(0, queue[0].dueAt - now));
  };
  const put = (data: Buffer | null): void => {
    queue.push({ dueAt: performance.now() + delayMs, data });
    inFlightBytes += data?.length ?? 0;
    if (inFlightBytes >= maxInFlightBytes) from.pause();
    if (!timer && !to.writableNeedDrain) timer = setTimeout(deliver, delayMs);
  };
  from.on('data', put);
  from.once('end', () => put(null));
  from.on('error', () => to.destroy());
  from.once('close', () => {
    if (from.errored) to.destroy();
  });
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
  const far = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  forward(near, far);
  forward(far, near);
});
server.listen(0, '127.0.0.1', () => {
  console.log((server.address() as AddressInfo).port);
});
process.stdin.on('end', () => process.exit(0)).resume();
