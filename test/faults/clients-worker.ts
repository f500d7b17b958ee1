/**
 * Many employees' machines in one process: each client is what `ztna connect APP --listen 0` makes, an agent with a
 * control channel, a tunnel and a local port of its own. Clients of one home share its device.
 */
import { loadIdentity, createLogger } from '../../protocol/host/index.ts';
import { Agent } from '../../client/agent/agent.ts';
import { openProfile } from '../../client/agent/profile.ts';
import { withAppListener } from '../../client/front-end/app-listener.ts';
import { unlessAborted } from '../../client/front-end/unless-aborted.ts';
import { HeldConnection } from './held-connection.ts';
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
  /** When the held connection had its last answer, in milliseconds of wall clock; 0 where there is none. */
  readonly answeredAtMs: number;
  /** Why it is over, or what is wrong with its held connection; null while all is well. */
  readonly error: string | null;
}

interface Client {
  readonly home: string;
  port: number;
  event: string;
  atMs: number;
  readonly counts: Record<string, number>;
  answeredAtMs: number;
  held: HeldConnection | undefined;
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
          if (event.event === 'resumed') void ask(client);
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

/** Has the held connection carry something there and back, and notes when that was done. */
async function ask(client: Client): Promise<void> {
  try {
    await client.held?.roundTrip();
    client.answeredAtMs = Date.now();
  } catch (error) {
    client.error ??= `held connection: ${String(error)}`;
  }
}

async function open(home: string, app: string): Promise<Client> {
  const client: Client = {
    home,
    port: 0,
    event: 'closed',
    atMs: Date.now(),
    counts: {},
    answeredAtMs: 0,
    held: undefined,
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
  return client;
}

serveLines({
  /** Opens `count` clients of one home, one after the other; answers their local ports. */
  open: async ({ home, app, count }) => {
    const ports: number[] = [];
    for (let i = 0; i < Number(count); i++)
      ports.push((await open(String(home), String(app))).port);
    return ports;
  },
  /** Opens one client of each home, so many at once, each with a connection to the app that is held. */
  openEach: async ({ homes, app, atOnce }) => {
    const queue = [...(homes as readonly string[])];
    const openNext = async (): Promise<void> => {
      for (let home = queue.shift(); home !== undefined; home = queue.shift()) {
        const client = await open(home, String(app));
        client.held = await HeldConnection.open(client.port);
      }
    };
    await Promise.all(Array.from({ length: Number(atOnce) }, openNext));
  },
  snapshot: () =>
    clients.map(({ home, port, event, atMs, counts, answeredAtMs, error }): ClientReport => {
      return { home, port, event, atMs, counts, answeredAtMs, error };
    }),
  stop: async () => {
    for (const { stopping } of clients) stopping.abort();
    await Promise.all(clients.map(({ running }) => running));
  },
});
