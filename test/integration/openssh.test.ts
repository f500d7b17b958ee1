import { createHash, randomFillSync } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import test from 'ava';
import { Deployment } from '../support/deployment.ts';
import { missingOpenSsh, startSshd } from '../support/openssh.ts';
import { launchers, runProgram } from '../support/program.ts';

const missing = missingOpenSsh();
const mebibytes = Number(process.env['ZTNA_TEST_SCP_MIB'] ?? '16');

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

async function writeRandom(path: string, size: number): Promise<void> {
  const file = await open(path, 'w');
  const mebibyte = Buffer.alloc(1 << 20);
  for (let i = 0; i < size; i++) await file.write(randomFillSync(mebibyte));
  await file.close();
}

test(`OpenSSH - ssh and scp of ${mebibytes} MiB each way work through ProxyCommand`, async (t) => {
  if (missing !== undefined) {
    t.log(`left out: ${missing}`);
    t.pass();
    return;
  }
  t.timeout(300_000);
  const dir = await mkdtemp(join(tmpdir(), 'ztna-ssh-'));
  const sshd = await startSshd(join(dir, 'sshd'));
  t.teardown(async () => {
    await sshd.stop();
    await rm(dir, { recursive: true, force: true });
  });
  const deployment = await Deployment.start({
    apps: [{ name: 'build-host', target: `tcp://127.0.0.1:${sshd.port}` }],
  });
  t.teardown(() => deployment.stop());
  const machine = await deployment.enrol();
  const options = {
    env: { ...machine.env },
    timeoutMs: 240_000,
  };
  const args = [...sshd.clientArgs, '-o', `ProxyCommand=${launchers.ztna} connect %h --stdio`];
  const host = `${sshd.user}@build-host`;

  const said = await runProgram(
    'ssh',
    [...args, host, 'echo', 'through', 'the', 'tunnel'],
    options,
  );
  t.is(said.code, 0, said.stderr);
  t.is(said.stdout, 'through the tunnel\n');

  const failed = await runProgram('ssh', [...args, host, 'exit', '7'], options);
  t.is(failed.code, 7, failed.stderr);

  const original = join(dir, 'original');
  await writeRandom(original, mebibytes);
  const up = await runProgram(
    'scp',
    [...args, '-q', original, `${host}:${join(dir, 'up')}`],
    options,
  );
  t.is(up.code, 0, up.stderr);
  t.is(await digest(join(dir, 'up')), await digest(original));
  const down = await runProgram(
    'scp',
    [...args, '-q', `${host}:${join(dir, 'up')}`, join(dir, 'down')],
    options,
  );
  t.is(down.code, 0, down.stderr);
  t.is(await digest(join(dir, 'down')), await digest(original));
});
