/** The applications on employees' machines: open flows to local ports, send, and prove what comes back. */
import { connect } from 'node:net';
import { encodeGreeting, FlowSocket, type FlowSpec } from './flow.ts';
import { serveLines } from './line-server.ts';

const flows = new Map<number, FlowSocket>();

function mustFind(flow: unknown): FlowSocket {
  const found = flows.get(Number(flow));
  if (!found) throw new Error(`no flow ${String(flow)}`);
  return found;
}

serveLines({
  open: async ({ spec, port }) => {
    const wanted = spec as FlowSpec;
    const socket = connect({
      host: '127.0.0.1',
      port: Number(port),
      allowHalfOpen: true,
      noDelay: true,
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    socket.write(encodeGreeting(wanted));
    flows.set(wanted.flow, new FlowSocket(socket, wanted, 'up'));
  },
  stop: ({ flow }) => {
    mustFind(flow).stop();
  },
  pace: ({ flow, intervalMs }) => {
    mustFind(flow).pace(Number(intervalMs));
  },
  snapshot: () => [...flows.values()].map((flow) => flow.report()),
  wait: async ({ flow }) => {
    const found = mustFind(flow);
    await found.ended;
    return found.report();
  },
});
