import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { commandLine, withDescendants } from '../bench/processes.ts';
import { Deployment } from '../support/deployment.ts';

test('control plane killed - an open tunnel goes on and is verified by the next one', async (t) => {
  t.timeout(90_000);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const deployment = await Deployment.start({
    apps: [
      { name: 'echo', target: `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}` },
    ],
    relayConfig: { verification: '{ interval: 5s }' },
  });
  t.teardown(async () => {
    await deployment.stop();
    server.close();
  });
  const machine = await deployment.enrol('alice');
  const { program, port } = await deployment.connect(machine, 'echo');
  const socket = connect({ port, host: '127.0.0.1' });
  t.teardown(() => socket.destroy());
  const echo = async (text: string) => {
    socket.write(text);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    t.is(chunk.toString(), text);
  };
  await echo('before');

  const supervisor = deployment.relay.child.pid ?? 0;
  const find = () =>
    withDescendants([supervisor]).find((pid) => commandLine(pid).includes('control-plane/main'));
  const killed = find();
  t.not(killed, undefined);
  const seen = program.lines.length;
  process.kill(killed ?? 0, 'SIGKILL');
  await echo('during');
  // A lease of the next control plane: nobody else could have made one.
  const verified = await program.event('verified', seen);
  t.true(Date.parse(String(verified['until'])) > Date.now());
  t.not(find(), killed);
  await echo('after');
});
