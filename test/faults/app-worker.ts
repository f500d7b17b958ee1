/** The private app of the harness: takes flows, proves what arrives and sends what each asks for. */
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { decodeGreeting, FlowSocket, greetingBytes, isEchoGreeting } from './flow.ts';
import { serveLines } from './line-server.ts';

const flows: FlowSocket[] = [];
let strangers = 0;

function take(socket: Socket): void {
  socket.on('error', () => undefined);
  const greet = (): void => {
    const greeting = socket.read(greetingBytes) as Buffer | null;
    if (!greeting) return;
    socket.off('readable', greet);
    if (isEchoGreeting(greeting)) {
      socket.pipe(socket);
      return;
    }
    const spec = greeting.length === greetingBytes ? decodeGreeting(greeting) : undefined;
    if (spec) {
      flows.push(new FlowSocket(socket, spec, 'down'));
      return;
    }
    strangers++;
    socket.destroy();
  };
  socket.on('readable', greet);
  socket.once('end', () => {
    if (socket.listenerCount('readable') > 0) socket.destroy(); // ended before it said what it wants
  });
}

serveLines({
  listen: ({ host }) =>
    new Promise<number>((resolve, reject) => {
      const server = createServer({ allowHalfOpen: true, noDelay: true }, take);
      server.once('error', reject);
      server.listen(0, String(host), () => resolve((server.address() as AddressInfo).port));
    }),
  snapshot: () => ({ flows: flows.map((flow) => flow.report()), strangers }),
  pace: ({ flow, intervalMs }) => {
    flows.find(({ spec }) => spec.flow === flow)?.pace(Number(intervalMs));
  },
  wait: async ({ flow }) => {
    const found = flows.find(({ spec }) => spec.flow === flow);
    if (!found) throw new Error(`flow ${String(flow)} never arrived`);
    await found.ended;
    return found.report();
  },
});
