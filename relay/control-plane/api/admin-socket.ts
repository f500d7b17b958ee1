import { chmod, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { http, type Logger } from '../../../protocol/host/index.ts';

/** The largest command: a policy of many files. */
const maxBodyBytes = 4 * 1_048_576;

/** Runs one administration command for an actor; throws what it refuses. */
export type RunCommand = (command: string, args: unknown, actor: string) => Promise<unknown>;

export interface AdminSocket {
  stop(): Promise<void>;
}

/**
 * Administration over a unix socket that its owner alone can open (0600): `POST /v1/command` with
 * `{"command","args"}` answers `{"result"}` or `{"error":{code,message,hint,ref}}`.
 */
export async function startAdminSocket(options: {
  readonly socketPath: string;
  readonly run: RunCommand;
  readonly logger: Logger;
}): Promise<AdminSocket> {
  const { socketPath, run, logger } = options;
  // Who may open the socket is this process's own user; node cannot ask the kernel for the peer's.
  const actor = `uid:${String(process.getuid?.() ?? 'unknown')}`;

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      if (request.method !== 'POST' || request.url !== '/v1/command') {
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: 'there is only POST /v1/command' });
      }
      const { command, args } = parseCommand(await readBody(request));
      reply(response, 200, { result: (await run(command, args, actor)) ?? null });
    } catch (error) {
      const failure = toZtnaError(error);
      if (failure.code === 'ERR_INTERNAL') {
        const { cause } = failure;
        logger.error('admin_failed', {
          error: failure.message,
          cause: cause instanceof Error ? (cause.stack ?? cause.message) : null,
        });
      }
      const { code, message, hint, ref } = failure;
      reply(response, 400, {
        error: { code, message, hint: hint?.replace(/^fix: /, '') ?? null, ref: ref ?? null },
      });
    }
  };

  const server = http.createServer((request, response) => {
    void handle(request, response);
  });
  await rm(socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  // Until here the directory, which nobody else may enter, keeps others out.
  await chmod(socketPath, 0o600);

  let stopping: Promise<void> | undefined;
  return {
    stop: () =>
      (stopping ??= new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeAllConnections();
      })),
  };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseCommand(body: string): { command: string; args: unknown } {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (cause) {
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { cause });
  }
  const { command, args } = (json ?? {}) as { command?: unknown; args?: unknown };
  if (typeof command !== 'string') throw new ZtnaError('ERR_MESSAGE_MALFORMED');
  return { command, args: args ?? {} };
}

function reply(response: ServerResponse, status: number, value: unknown): void {
  if (response.destroyed) return;
  const text = JSON.stringify(value);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    connection: 'close',
  });
  response.end(text);
}
