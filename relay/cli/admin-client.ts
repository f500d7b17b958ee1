import { join } from 'node:path';
import { isErrorCode, toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { http } from '../../protocol/host/index.ts';

/** Answers larger than this are not believed to come from our relay. */
const maxAnswerBytes = 64 * 1_048_576;

/** An administration command may wait this long: a policy check on a busy relay, an audit export page. */
const timeoutMs = 60_000;

/** Where the running relay of a state directory listens for administration. */
export function adminSocketPath(dir: string): string {
  return join(dir, 'admin.sock');
}

/**
 * Runs one administration command on the relay that runs on `dir`. Throws what the relay refused it with, and
 * ERR_RELAY_UNREACHABLE when none runs there.
 */
export async function callAdmin(
  dir: string,
  command: string,
  args: Record<string, unknown>,
): Promise<unknown> {
  const text = await post(dir, JSON.stringify({ command, args }));
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'the relay answered something else', cause });
  }
  const { error, result } = answer as { error?: Record<string, unknown>; result?: unknown };
  if (!error) return result;
  const code = typeof error['code'] === 'string' ? error['code'] : '';
  const optional = (key: 'hint' | 'ref') =>
    typeof error[key] === 'string' ? { [key]: error[key] } : {};
  throw new ZtnaError(isErrorCode(code) ? code : 'ERR_INTERNAL', {
    ...(typeof error['message'] === 'string' ? { message: error['message'] } : {}),
    ...optional('hint'),
    ...optional('ref'),
  });
}

function post(dir: string, body: string): Promise<string> {
  const socketPath = adminSocketPath(dir);
  return new Promise((resolve, reject) => {
    const call = http.request(
      {
        socketPath,
        method: 'POST',
        path: '/v1/command',
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        timeout: timeoutMs,
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxAnswerBytes) call.destroy(new ZtnaError('ERR_MESSAGE_TOO_LARGE'));
          else chunks.push(chunk);
        });
        response.on('end', () => {
          resolve(Buffer.concat(chunks).toString('utf8'));
        });
        response.on('error', reject);
      },
    );
    call.on('timeout', () => {
      call.destroy(
        new ZtnaError('ERR_RELAY_UNREACHABLE', {
          message: 'the relay did not answer in time',
          hop: 'relay',
        }),
      );
    });
    call.on('error', (error) => {
      reject(error instanceof ZtnaError ? error : unreachable(dir, error));
    });
    call.end(body);
  });
}

function unreachable(dir: string, error: NodeJS.ErrnoException): ZtnaError {
  if (error.code === 'EACCES') {
    return new ZtnaError('ERR_CONFIG_PERMISSIONS', {
      message: `this user may not administer the relay in ${dir}`,
      hint: 'run this as the user that runs the relay',
      cause: error,
    });
  }
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') {
    return new ZtnaError('ERR_RELAY_UNREACHABLE', {
      message: `no relay is running on ${dir}`,
      hint: `start it: ztna-relay run --dir ${dir}`,
      hop: 'relay',
      cause: error,
    });
  }
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message: `the relay could not be reached: ${toZtnaError(error).message}`,
    hop: 'relay',
    cause: error,
  });
}
