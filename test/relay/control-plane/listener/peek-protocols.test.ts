import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { controlProtocol } from '../../../../protocol/index.ts';
import { peekProtocols } from '../../../../relay/control-plane/listener/peek-protocols.ts';
import { clientHelloFor } from '../../../support/client-hello.ts';

async function pair(t: ExecutionContext): Promise<{ readonly far: Socket; readonly near: Socket }> {
  const server = createServer({ allowHalfOpen: false });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const far = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  const [near] = (await once(server, 'connection')) as [Socket];
  for (const socket of [far, near]) socket.on('error', () => undefined);
  t.teardown(() => {
    far.destroy();
    near.destroy();
    server.close();
  });
  return { far, near };
}

test('peekProtocols - tells what is offered and puts back every byte, those too that came meanwhile', async (t) => {
  const { far, near } = await pair(t);
  const hello = await clientHelloFor(controlProtocol);
  far.write(hello);
  const { offered, putBack } = await peekProtocols(near, 60_000);
  t.deepEqual(offered, [controlProtocol]);
  const more = once(near, 'readable');
  far.write('and more');
  await more;
  putBack();
  t.is((near.read() as Buffer).toString('latin1'), `${hello.toString('latin1')}and more`);
});

test('peekProtocols - whoever leaves while the bytes are held shows as closed', async (t) => {
  const { far, near } = await pair(t);
  far.write(await clientHelloFor(controlProtocol));
  await peekProtocols(near, 60_000);
  const closed = once(near, 'close');
  far.end();
  await closed;
  t.true(near.destroyed);
});

test('peekProtocols - one that has left before it offered anything is refused', async (t) => {
  const { far, near } = await pair(t);
  far.end((await clientHelloFor(controlProtocol)).subarray(0, 40));
  await t.throwsAsync(peekProtocols(near, 60_000), { code: 'ERR_MESSAGE_MALFORMED' });
});
