import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import test from 'ava';
import { ConnectProxy } from '../support/connect-proxy.ts';
import { Deployment } from '../support/deployment.ts';
import { launchers, runProgram } from '../support/program.ts';
import { addDataPlane } from '../support/relays.ts';

const password = 'p@ss-for-the-proxy';

/** Sends the bytes and half-closes; answers what came back until the end. */
async function exchange(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.end(bytes);
  const chunks: Buffer[] = [];
  for await (const chunk of socket as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('proxy - client, connector and data plane reach a relay that only an authenticating proxy can find', async (t) => {
  t.timeout(120_000);
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const proxy = await ConnectProxy.start({
    credentials: `alice:${password}`,
    routes: { 'relay.example': '127.0.0.1' },
  });
  t.teardown(() => proxy.stop());
  const address = `127.0.0.1:${proxy.port}`;
  const base64 = Buffer.from(`alice:${password}`).toString('base64');
  const behindProxy = {
    DEBUG: '*',
    HTTPS_PROXY: `http://alice:${encodeURIComponent(password)}@${address}`,
  };
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }],
    urlHost: 'relay.example',
    env: { connector: behindProxy, machine: behindProxy },
  });
  t.teardown(() => deployment.stop());
  const alice = await deployment.enrol('alice');

  const { program, port } = await deployment.connect(alice, 'echo');
  const bytes = randomBytes(1_048_576);
  t.true((await exchange(port, bytes)).equals(bytes));
  t.deepEqual(new Set(proxy.targets), new Set([`relay.example:${deployment.port}`]));

  const status = await alice.ztna('status', '--json');
  t.is(status.code, 0, status.stderr);
  const { proxy: named } = JSON.parse(status.stdout) as { proxy: string };
  t.is(named, `http://${address} (HTTPS_PROXY)`);
  const connector = await runProgram(
    launchers.connector,
    ['status', '--dir', deployment.connectorDir],
    { env: behindProxy },
  );
  t.true(connector.stdout.includes(`proxy      http://${address} (HTTPS_PROXY)`), connector.stdout);

  const wrong = { ...alice.env, HTTPS_PROXY: `http://alice:wrong@${address}` };
  const refused = await runProgram(launchers.ztna, ['apps'], { env: wrong });
  t.is(refused.code, 3);
  t.regex(refused.stderr, /ERR_NETWORK_PROXY/);
  t.regex(refused.stderr, /\(HTTPS_PROXY\) answered 407/);
  t.regex(refused.stderr, /\nfix: set HTTPS_PROXY=/);

  // A data plane alone enrols at, and has its line to, a control plane that it cannot reach otherwise.
  const edge = await addDataPlane(deployment, 'edge', behindProxy);
  t.teardown(() => edge.program.stop('SIGKILL'));
  await edge.program.until(
    () => edge.program.errorLines.find((line) => /control_link_open.*HTTPS_PROXY/.test(line)),
    'its line to the control plane',
  );

  const programs = [program, deployment.connector, deployment.relay, edge.program];
  const logs = programs.map((each) => each.errorLines);
  t.regex(logs.join(), /https-proxy-agent/); // DEBUG makes it talk
  const said = [logs, program.lines, deployment.connector.lines, status, refused, connector];
  for (const secret of [password, encodeURIComponent(password), 'alice:wrong', base64]) {
    t.false(JSON.stringify(said).includes(secret));
  }
});
