import { once } from 'node:events';
import { chmod, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { ZtnaError } from '../protocol/index.ts';

/** What `ztna-connector status` tells. Members are only ever added. */
export interface ConnectorStatus {
  readonly state: 'ready' | 'waiting' | 'stopping' | 'stopped';
  readonly connector: string | null;
  readonly name: string | null;
  readonly relay: string | null;
  /** The HTTP proxy on the way to the relay and the variable that names it, or null. */
  readonly proxy: string | null;
  readonly instance: string | null;
  readonly channel: 'open' | 'lost' | null;
  /** Why the channel is lost, or null. */
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly slots: number;
  readonly tunnels: number;
  /** Those of `tunnels` that are kept without a path. */
  readonly detached: number;
  readonly streams: number;
  /** The channel to each control plane. */
  readonly links: readonly {
    readonly url: string;
    readonly state: 'open' | 'dialling' | 'wedged';
    readonly error: { readonly code: string; readonly message: string } | null;
  }[];
  /** The idle sockets at each relay. */
  readonly relays: readonly {
    readonly id: string;
    readonly url: string;
    readonly idle: number;
    readonly wanted: number;
    readonly state: 'filling' | 'filled' | 'wedged';
    readonly roundTripMs: number | null;
  }[];
  /** What keeps it from being ready, a line each. */
  readonly problems: readonly string[];
  /** `routed` is false for a name that the relay does not know; `up` is null until a check has told. */
  readonly apps: readonly {
    readonly name: string;
    readonly target: string;
    readonly routed: boolean;
    readonly checked: boolean;
    readonly up: boolean | null;
  }[];
  readonly certificateEndsAt: string | null;
  readonly sealed: boolean | null;
}

const socketName = 'connector.sock';
const maxStatusBytes = 1_048_576;
const answerTimeoutMs = 5_000;

/**
 * Answers everyone who may open `DIR/connector.sock` (0600) with the status; it takes no commands.
 * Throws ERR_CONFIG_LOCKED when another process already does for this directory.
 */
export async function startStatusSocket(
  dir: string,
  status: () => ConnectorStatus,
): Promise<{ stop: () => Promise<void> }> {
  const path = join(dir, socketName);
  if ((await readStatus(dir)) !== undefined) {
    throw new ZtnaError('ERR_CONFIG_LOCKED', {
      message: `another ztna-connector runs from ${dir}`,
      hint: 'stop it first, or give this one a directory of its own',
    });
  }
  await rm(path, { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.setTimeout(answerTimeoutMs, () => socket.destroy());
    socket.end(`${JSON.stringify(status())}\n`);
  });
  server.maxConnections = 16;
  // The directory is 0700, so nobody else reaches the socket before its mode is set.
  server.listen(path);
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `${path} cannot be listened on`,
      hint: 'choose a --dir with a shorter path on a file system that holds sockets',
      cause,
    });
  }
  await chmod(path, 0o600);
  const { promise: closed, resolve } = Promise.withResolvers<undefined>();
  server.on('close', () => {
    resolve(undefined);
  });
  return {
    stop: async () => {
      server.close();
      await closed;
    },
  };
}

/** The status of the process that runs from `dir`, or undefined when none does. */
export async function readStatus(dir: string): Promise<ConnectorStatus | undefined> {
  const socket = connect(join(dir, socketName));
  socket.setTimeout(answerTimeoutMs, () => socket.destroy(new Error('no answer')));
  try {
    let text = '';
    for await (const chunk of socket.setEncoding('utf8') as AsyncIterable<string>) {
      text += chunk;
      if (text.length > maxStatusBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
    }
    return JSON.parse(text) as ConnectorStatus;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined;
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `${join(dir, socketName)} gave no status`,
      hint: 'is this the directory of a ztna-connector, and are you its user?',
      cause: error,
    });
  } finally {
    socket.destroy();
  }
}
