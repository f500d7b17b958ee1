import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { Deployment } from '../support/deployment.ts';
import { missingPostgres, startPostgres } from '../support/postgresql.ts';
import { runProgram } from '../support/program.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';

const missing = missingPostgres();

test('PostgreSQL - psql and pgbench with 50 connections work through one tunnel', async (t) => {
  if (missing !== undefined) {
    t.log(`left out: ${missing}`);
    t.pass();
    return;
  }
  t.timeout(120_000);
  const dir = await mkdtemp(join(tmpdir(), 'ztna-pg-'));
  await chmod(dir, 0o755); // the server's own account must get in
  const postgres = await startPostgres(join(dir, 'server'));
  t.teardown(async () => {
    await postgres.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const deployment = await Deployment.start({
    apps: [{ name: 'db', target: `tcp://127.0.0.1:${postgres.port}` }],
  });
  t.teardown(() => deployment.stop());
  const machine = await deployment.enrol();
  const { port } = await deployment.connect(machine, 'db');
  const to = ['-h', '127.0.0.1', '-p', String(port), '-U', 'ztna'];

  const rows = await runProgram('psql', [
    ...to,
    '-At',
    '-c',
    'select sum(i) from generate_series(1, 200000) i',
    'postgres',
  ]);
  t.is(rows.stderr, '');
  t.is(rows.stdout.trim(), '20000100000');

  const large = await runProgram('psql', [
    ...to,
    '-At',
    '-c',
    `select length(repeat('x', 8000000)), repeat('y', 1000000)`,
    'postgres',
  ]);
  t.is(large.stdout.length, '8000000|'.length + 1_000_000 + 1);

  const made = await runProgram('pgbench', [...to, '-q', '-i', '-s', '2', 'postgres']);
  t.is(made.code, 0, made.stderr);
  const run = await runProgram('pgbench', [...to, '-c', '50', '-j', '2', '-t', '20', 'postgres']);
  t.is(run.code, 0, run.stderr);
  t.regex(run.stdout, /number of transactions actually processed: 1000\/1000/);
  t.regex(run.stdout, /number of failed transactions: 0 /);
});
