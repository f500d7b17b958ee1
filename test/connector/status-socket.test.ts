import test from 'ava';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { ZtnaError } from '../../protocol/index.ts';
import {
  readStatus,
  startStatusSocket,
  type ConnectorStatus,
} from '../../connector/status-socket.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const status = { state: 'ready', tunnels: 3 } as ConnectorStatus;

test('startStatusSocket - answers with the status, for its owner alone', async (t) => {
  const dir = await temporaryDirectory(t);
  const socket = await startStatusSocket(dir, () => status);
  t.teardown(socket.stop);
  t.deepEqual(await readStatus(dir), status);
  t.is((await stat(join(dir, 'connector.sock'))).mode & 0o777, 0o600);
});

test('startStatusSocket - is one per directory, and leaves nothing behind', async (t) => {
  const dir = await temporaryDirectory(t);
  const first = await startStatusSocket(dir, () => status);
  const error = await t.throwsAsync(
    startStatusSocket(dir, () => status),
    { instanceOf: ZtnaError },
  );
  t.is(error.code, 'ERR_CONFIG_LOCKED');
  await first.stop();
  t.is(await readStatus(dir), undefined);
  const second = await startStatusSocket(dir, () => status);
  await second.stop();
});

test('startStatusSocket - names the remedy for a path that is too long', async (t) => {
  const dir = `/tmp/${'x'.repeat(120)}`;
  const error = await t.throwsAsync(
    startStatusSocket(dir, () => status),
    { instanceOf: ZtnaError },
  );
  t.is(error.code, 'ERR_CONFIG_INVALID');
  t.truthy(error.hint);
});

test('readStatus - refuses an answer that is no status', async (t) => {
  const dir = await temporaryDirectory(t);
  const server = createServer((socket) => socket.end('nonsense'));
  server.listen(join(dir, 'connector.sock'));
  await once(server, 'listening');
  t.teardown(() => server.close());
  const error = await t.throwsAsync(readStatus(dir), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_CONFIG_INVALID');
});
