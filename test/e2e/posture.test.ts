import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Deployment } from '../support/deployment.ts';

interface Need {
  readonly app: string;
  readonly what: string;
  readonly actual: string;
  readonly met: boolean;
  readonly fix: string | null;
}

interface Told {
  readonly checks: readonly { readonly check: string; readonly result: string }[];
  readonly heardAgoMs: number | null;
  readonly needs: readonly Need[] | null;
  readonly error: { readonly code: string } | null;
}

test('ztna posture - shows what an app needs of the device, and that it was mended', async (t) => {
  t.timeout(120_000);
  const server = createServer((socket) => socket.end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const dir = await mkdtemp(join(tmpdir(), 'ztna-posture-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, 'enrolled');
  const deployment = await Deployment.start({
    apps: [{ name: 'wiki', target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }],
    relayConfig: { posture: `{ checks: [{ id: corp_file, file: ${file} }] }` },
    policies: {
      'staff.cedar':
        '@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource) when { context.posture.corp_file == "on" };',
    },
  });
  t.teardown(() => deployment.stop());
  const alice = await deployment.enrol('alice');
  const ask = async (): Promise<Told> => {
    const { code, stdout, stderr } = await alice.ztna('posture', '--json');
    t.is(code, 0, stderr);
    return JSON.parse(stdout) as Told;
  };
  const resultOf = ({ checks }: Told) => checks.find(({ check }) => check === 'corp_file')?.result;

  const before = await ask();
  t.is(before.error, null);
  t.is(resultOf(before), 'off');
  t.true(before.heardAgoMs !== null);
  t.like(before.needs, [{ app: 'wiki', what: 'posture.corp_file', actual: 'off', met: false }]);
  t.regex(before.needs?.[0]?.fix ?? '', /administrator/);
  const denied = await alice.ztna('connect', 'wiki', '--listen', '0');
  t.is(denied.code, 6, denied.stderr);
  t.regex(denied.stderr, /ERR_POSTURE_UNHEALTHY/);

  await writeFile(file, '');
  const after = await ask();
  t.is(resultOf(after), 'on');
  t.like(after.needs, [{ app: 'wiki', actual: 'on', met: true, fix: null }]);
  await deployment.connect(alice, 'wiki');

  const { stdout, stderr } = await alice.ztna('posture');
  t.regex(stdout, /^corp_file +on +it is there$/m);
  t.regex(stdout, /^wiki +corp_file: on +on +yes$/m);
  t.regex(stderr, /the relay heard of this device \d+ s ago/);
});
