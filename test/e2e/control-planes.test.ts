import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { Deployment } from '../support/deployment.ts';
import { missingServer } from '../support/postgresql.ts';
import { mustRun } from '../support/program.ts';
import { addControlPlane, listRelays } from '../support/relays.ts';
import { stopOwnPostgres } from '../support/shared-postgresql.ts';
import { newPostgresDatabase } from '../relay/control-plane/fixture.ts';

const missing = missingServer();
const title = 'control planes - two share a store, and either carries on when the other is killed';
test.after.always('stop PostgreSQL', () => stopOwnPostgres());

if (missing !== undefined) {
  test.skip(`${title}: ${missing}`, (t) => {
    t.fail();
  });
} else {
  test(title, async (t) => {
    t.timeout(180_000);
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const database = await newPostgresDatabase('nothing');
    const deployment = await Deployment.start({
      apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
      relayConfig: { verification: '{ interval: 1s }' },
      storeUrl: database.url,
    });
    const second = await addControlPlane(deployment, 'second');
    t.teardown(async () => {
      await second.program.stop('SIGKILL');
      await deployment.stop();
      server.close();
      await database.drop();
    });

    // The URL of the store is in files of their owner alone, and in nobody's arguments.
    for (const dir of [deployment.relayDir, second.dir]) {
      const config = join(dir, 'relay.yaml');
      t.true((await readFile(config, 'utf8')).includes(database.url));
      t.is((await stat(config)).mode & 0o777, 0o600);
    }
    const relays = await listRelays(deployment);
    t.deepEqual([...relays.keys()].sort(), ['local', 'second']);

    const machine = await deployment.enrol();
    const used = await machine.ztna('run', 'echo', '--', 'true');
    t.is(used.code, 0, used.stderr);
    await second.admin('user', 'add', 'bert');
    t.regex(await deployment.admin('user', 'list', '--json'), /"bert"/);
    await deployment.admin('user', 'disable', 'bert');
    t.regex(await second.admin('user', 'show', 'bert', '--json'), /disabled/);

    // One connection inside a tunnel, over the death of the relay that granted it.
    const tunnel = await deployment.connect(machine, 'echo');
    const socket = connect(tunnel.port, '127.0.0.1');
    t.teardown(() => socket.destroy());
    const echoed = async (text: string) => {
      socket.write(text);
      for (let seen = ''; seen.length < text.length;) {
        const [chunk] = (await once(socket, 'data')) as [Buffer];
        seen += chunk.toString();
        if (!text.startsWith(seen)) throw new Error(`not what was sent: ${seen}`);
      }
    };
    await echoed('before');

    await deployment.relay.stop('SIGKILL');
    await echoed('after');
    // Whoever knows both relays finds the one that is left.
    for (;;) {
      const again = await machine.ztna('run', 'echo', '--', 'true');
      if (again.code === 0) break;
      t.log(again.stderr.trim().split('\n')[0] ?? '');
    }
    const verdict = await second.admin('audit', 'verify', '--json');
    t.regex(verdict, /"isIntact":true/);
    const exported = await second.admin('audit', 'export', '--since', '1h');
    const writers = exported
      .split('\n')
      .filter(Boolean)
      .map((line) => (JSON.parse(line) as { writer: string }).writer);
    t.is(new Set(writers).size, 2);
    await mustRun(deployment.commands.relay, ['relay', 'list', '--dir', second.dir]);
  });
}
