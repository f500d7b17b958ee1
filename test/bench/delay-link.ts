/**
 * A link in user space for kernels without `netem`: forwards one TCP port to another and hands every chunk on after a
 * fixed delay, in order, both ways. Bandwidth is not limited; what is on the way is bounded by `maxInFlightBytes`.
 *
 *   delay-link.ts DELAY_MS TARGET_PORT     prints its own port
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

const delayMs = Number(process.argv[2]);
const targetPort = Number(process.argv[3]);
const maxInFlightBytes = 64 * 1024 * 1024;

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
