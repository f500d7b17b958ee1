import { readdir, readFile, readlink } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { basename } from 'node:path';
import { ZtnaError } from '../errors.ts';
import { systemCode } from './state-dir.ts';

export interface TcpListener {
  readonly address: string;
  readonly port: number;
  /** Stops listening and ends what was accepted. Resolves when nothing is left; may be called again. */
  stop(): Promise<void>;
}

/**
 * Listens for TCP. Accepted sockets allow half-close, send without delay and are paused until the handler reads
 * them. Throws ERR_CLIENT_PORT_BUSY naming the holder where it can be found, ERR_CONFIG_INVALID for an address that
 * cannot be listened on.
 */
export async function listenTcp(options: {
  readonly host: string;
  readonly port: number;
  readonly onConnection: (socket: Socket) => void;
}): Promise<TcpListener> {
  const { host, port } = options;
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined); // Whoever handles it sees `close`.
    socket.once('close', () => sockets.delete(socket));
    options.onConnection(socket);
  });
  try {
    await listen(server, host, port);
  } catch (error) {
    throw await explainListenError(error, host, port);
  }
  server.on('error', () => undefined); // A failed accept (no descriptors left) is not the end of the listener.
  const { address, port: bound } = server.address() as AddressInfo;
  let stopped: Promise<void> | undefined;
  return {
    address,
    port: bound,
    stop: () =>
      (stopped ??= new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
        for (const socket of sockets) socket.destroy();
      })),
  };
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function explainListenError(cause: unknown, host: string, port: number): Promise<ZtnaError> {
  const code = systemCode(cause);
  const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  if (code === 'EADDRINUSE') {
    const holder = await portHolder(port).catch(() => undefined);
    return new ZtnaError('ERR_CLIENT_PORT_BUSY', {
      message: `${address} is taken${holder === undefined ? '' : ` by ${holder}`}`,
      hint: 'choose another port with --listen PORT, or stop that program',
      hop: 'client',
      reason: 'port_busy',
      cause,
    });
  }
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${address} cannot be listened on (${code ?? 'unknown'})`,
    hint:
      code === 'EACCES'
        ? 'choose a port above 1023'
        : 'choose an address of this machine, such as 127.0.0.1',
    hop: 'client',
    reason: 'listen_failed',
    cause,
  });
}

/** Who listens on a TCP port, as far as Linux lets us see: `name (pid 1)` or `another user (uid 0)`. */
async function portHolder(port: number): Promise<string | undefined> {
  if (process.platform !== 'linux') return undefined;
  const sockets = new Map<string, string>(); // inode → uid
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const lines = (await readFile(table, 'latin1').catch(() => '')).split('\n').slice(1);
    for (const line of lines) {
      const [, local, , state, , , , uid, , inode] = line.trim().split(/\s+/);
      const isListening = state === '0A' && local?.split(':')[1] === portHex(port);
      if (isListening && inode !== undefined && uid !== undefined) sockets.set(inode, uid);
    }
  }
  const [uid] = sockets.values();
  if (uid === undefined) return undefined;
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '');
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode === undefined || !sockets.has(inode)) continue;
      return `${await programName(pid)} (pid ${pid})`;
    }
  }
  return `another user’s program (uid ${uid})`;
}

/** What a person calls the program of a process. Its `comm` would be the name of a thread. */
async function programName(pid: string): Promise<string> {
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  const [title = ''] = line.split('\0');
  const [program = ''] = title.split(': '); // daemons write what they do behind their name
  return program === '' ? 'a program' : basename(program);
}

function portHex(port: number): string {
  return port.toString(16).toUpperCase().padStart(4, '0');
}
