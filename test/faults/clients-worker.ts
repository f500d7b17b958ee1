/**
 * Many employees' machines in one process: each client is what `ztna connect APP --listen 0` makes, an agent with a
 * control channel, a tunnel and a local port of its own. Clients of one home share its device.
 */
import { loadIdentity, createLogger } from '../../protocol/host/index.ts';
import { Agent } from '../../client/agent/agent.ts';
import { openProfile } from '../../client/agent/profile.ts';
import { withAppListener } from '../../client/front-end/app-listener.ts';
import { unlessAborted } from '../../client/front-end/unless-aborted.ts';
import { serveLines } from './line-server.ts';

/** What one client has come to. */
export interface ClientReport {
  readonly home: string;
  readonly port: number;
  /** The last event of the tunnel, and when it was, in milliseconds of wall clock. */
  readonly event: string;
  readonly atMs: number;
  /** How often each event was told. */
  readonly counts: Readonly<Record<string, number>>;
  /** Why it is over; null while it is not. */
  readonly error: string | null;
}

interface Client {
  readonly home: string;
  port: number;
  event: string;
  atMs: number;
  readonly counts: Record<string, number>;
  error: string | null;
  readonly stopping: AbortController;
  running: Promise<void>;
}

const clients: Client[] = [];
const logger = createLogger({ program: 'clients', write: () => undefined });

async function runClient(client: Client, app: string, opened: () => void): Promise<void> {
  const profile = await openProfile(undefined, { ZTNA_HOME: client.home });
  const identity = await loadIdentity(profile.dir);
  if (!identity) throw new Error(`${client.home} is not enrolled`);
  const { signal } = client.stopping;
  await withAppListener(
    {
      startAgent: () => Agent.start({ profile, identity, logger, signal, app }),
      app,
      reporter: {
        report: (event) => {
          client.counts[event.event] = (client.counts[event.event] ?? 0) + 1;
          if (event.event === 'verified') return;
          client.event = event.event;
          client.atMs = Date.now();
          if (event.event === 'open') opened();
        },
        say: () => undefined,
      },
      fixed: { host: '127.0.0.1', port: 0 },
      bind: () => Promise.reject(new Error('the port is fixed')),
      signal,
    },
    async (address, ended) => {
      client.port = address.port;
      const error = await unlessAborted(ended, signal);
      if (error) throw error;
    },
  );
}

async function open(home: string, app: string): Promise<number> {
  const client: Client = {
    home,
    port: 0,
    event: 'closed',
    atMs: Date.now(),
    counts: {},
    error: null,
    stopping: new AbortController(),
    running: Promise.resolve(),
  };
  clients.push(client);
  await new Promise<void>((resolve, reject) => {
    client.running = runClient(client, app, resolve).catch((error: unknown) => {
      const failure = error instanceof Error ? error : new Error(String(error));
      client.error = failure.message;
      reject(failure);
    });
  });
  // The port is told to `use` one turn after the tunnel is open.
  while (client.port === 0 && client.error === null)
    await new Promise((next) => setImmediate(next));
  return client.port;
}

serveLines({
  /** Opens `count` clients of one home, one after the other; answers their local ports. */
  open: async ({ home, app, count }) => {
    const ports: number[] = [];
    for (let i = 0; i < Number(count); i++) ports.push(await open(String(home), String(app)));
    return ports;
  },
  snapshot: () =>
    clients.map(({ home, port, event, atMs, counts, error }): ClientReport => {
      return { home, port, event, atMs, counts, error };
    }),
  stop: async () => {
    for (const { stopping } of clients) stopping.abort();
    await Promise.all(clients.map(({ running }) => running));
  },
});
