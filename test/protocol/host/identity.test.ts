import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createPublicKey, sign, verify } from 'node:crypto';
import nacl from 'tweetnacl';
import test, { type ExecutionContext } from 'ava';
import { newId } from '../../../protocol/id.ts';
import { rawPublicKey } from '../../../protocol/statement.ts';
import {
  isSealed,
  loadIdentity,
  saveIdentity,
  type Identity,
} from '../../../protocol/host/identity.ts';
import { createNoiseKey, createSigningKey } from '../../../protocol/host/keys.ts';
import { openStateDir, readSecretFile, writeSecretFile } from '../../../protocol/host/state-dir.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const refusedMode = { code: 'ERR_CONFIG_PERMISSIONS' };

async function directory(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'ztna-'));
  t.teardown(() => rm(path, { recursive: true }));
  return path;
}

async function newIdentity(): Promise<Identity> {
  const id = newId('device');
  const noiseKey = await createNoiseKey();
  return {
    id,
    role: 'device',
    relayUrl: 'https://relay.example',
    rootId: pki.rootId,
    ...pki.dialIdentity(`ztna://device/${id}`),
    signingKey: await createSigningKey(),
    noiseKey,
    noisePublicKey: rawPublicKey(noiseKey),
    profile: { user: 'ann' },
  };
}

function withPassphrase(t: ExecutionContext, path: string | undefined): void {
  if (path === undefined) delete process.env['ZTNA_KEY_PASSPHRASE_FILE'];
  else process.env['ZTNA_KEY_PASSPHRASE_FILE'] = path;
  t.teardown(() => delete process.env['ZTNA_KEY_PASSPHRASE_FILE']);
}

test('createSigningKey - makes keys that node:crypto and tweetnacl agree on', async (t) => {
  const key = await createSigningKey();
  const message = Buffer.from('statement');
  const signature = sign(null, message, key);
  t.true(nacl.sign.detached.verify(message, signature, rawPublicKey(key)));
  t.true(verify(null, message, createPublicKey(key), signature));
});

test.serial(
  'saveIdentity - keeps everything that loadIdentity answers, readable by its owner alone',
  async (t) => {
    const dir = join(await directory(t), 'state');
    const identity = await newIdentity();
    t.is(await loadIdentity(dir), undefined);
    await saveIdentity(dir, identity);
    const loaded = await loadIdentity(dir);
    t.truthy(loaded);
    if (!loaded) return;
    const { signingKey, noiseKey, bundle, ...rest } = identity;
    t.like(loaded, rest);
    t.true(loaded.signingKey.equals(signingKey));
    t.true(loaded.noiseKey.equals(noiseKey));
    t.is(loaded.bundle.statement, bundle.statement);
    t.is((await lstat(dir)).mode & 0o777, 0o700);
    t.is((await lstat(join(dir, 'identity.json'))).mode & 0o777, 0o600);
    t.deepEqual(await readdir(dir), ['identity.json']);
    t.false(await isSealed(dir));
  },
);

test.serial('saveIdentity - seals the file when there is a passphrase', async (t) => {
  const parent = await directory(t);
  const dir = join(parent, 'state');
  const passphrase = join(parent, 'passphrase');
  await writeFile(passphrase, 'correct horse\n', { mode: 0o600 });
  const identity = await newIdentity();
  withPassphrase(t, passphrase);
  await saveIdentity(dir, identity);
  const text = await readFile(join(dir, 'identity.json'), 'utf8');
  t.notRegex(text, /PRIVATE KEY|"profile"|relay\.example/);
  t.true(await isSealed(dir));
  t.is((await loadIdentity(dir))?.id, identity.id);

  await writeFile(passphrase, 'wrong horse\n');
  await t.throwsAsync(loadIdentity(dir), { code: 'ERR_CONFIG_INVALID', message: /passphrase/ });
  withPassphrase(t, undefined);
  await t.throwsAsync(loadIdentity(dir), { code: 'ERR_CONFIG_INVALID', message: /sealed/ });
});

test.serial('saveIdentity - refuses a passphrase file that everybody may read', async (t) => {
  const parent = await directory(t);
  const passphrase = join(parent, 'passphrase');
  await writeFile(passphrase, 'secret');
  await chmod(passphrase, 0o644);
  withPassphrase(t, passphrase);
  await t.throwsAsync(saveIdentity(join(parent, 'state'), await newIdentity()), refusedMode);
});

test.serial('loadIdentity - refuses a damaged file without quoting it', async (t) => {
  const dir = await directory(t);
  for (const text of ['{"tlsKey": "SECRET', '{"format":1,"tlsKey":"SECRET"}', '[]']) {
    await writeSecretFile(join(dir, 'identity.json'), text);
    const error = await t.throwsAsync(loadIdentity(dir), { code: 'ERR_CONFIG_INVALID' });
    t.notRegex(`${error.message} ${String(error.cause)}`, /SECRET/);
  }
});

test.serial('loadIdentity - refuses a certificate that is not for the key beside it', async (t) => {
  const dir = await directory(t);
  const other = pki.ca.issueFor(await requestOfNewKey(), {});
  await saveIdentity(dir, { ...(await newIdentity()), certificatePem: other });
  await t.throwsAsync(loadIdentity(dir), { code: 'ERR_CONFIG_INVALID' });
});

async function requestOfNewKey(): Promise<string> {
  const { createCertificateRequest, createTlsKey } = await import('../../../protocol/host/keys.ts');
  return createCertificateRequest(await createTlsKey());
}

test.serial('loadIdentity - refuses a file that others may read', async (t) => {
  const dir = await directory(t);
  await saveIdentity(dir, await newIdentity());
  await chmod(join(dir, 'identity.json'), 0o640);
  const error = await t.throwsAsync(loadIdentity(dir), refusedMode);
  t.regex((error as { hint?: string }).hint ?? '', /chmod 600/);
});

test('openStateDir - refuses a directory that others may enter, a link and a file', async (t) => {
  const parent = await directory(t);
  const wide = join(parent, 'wide');
  await mkdir(wide, { mode: 0o755 });
  await t.throwsAsync(openStateDir(wide), refusedMode);
  const link = join(parent, 'link');
  await mkdir(join(parent, 'real'), { mode: 0o700 });
  await symlink(join(parent, 'real'), link);
  await t.throwsAsync(openStateDir(link), refusedMode);
  const file = join(parent, 'file');
  await writeFile(file, '');
  await t.throwsAsync(openStateDir(file), refusedMode);
});

test('openStateDir - makes what is missing, closed to others', async (t) => {
  const path = join(await directory(t), 'a', 'b');
  t.is(await openStateDir(path), path);
  t.is((await lstat(path)).mode & 0o777, 0o700);
});

test('writeSecretFile - leaves the old content and nothing else when it fails', async (t) => {
  const dir = await directory(t);
  const path = join(dir, 'kept');
  await mkdir(path); // a directory cannot be replaced by a file
  await t.throwsAsync(writeSecretFile(path, 'new'));
  t.deepEqual(await readdir(dir), ['kept']);
});

test('readSecretFile - follows no link', async (t) => {
  const dir = await directory(t);
  await writeSecretFile(join(dir, 'real'), 'text');
  await symlink(join(dir, 'real'), join(dir, 'link'));
  t.is(await readSecretFile(join(dir, 'real')), 'text');
  await t.throwsAsync(readSecretFile(join(dir, 'link')), refusedMode);
  await t.throwsAsync(readSecretFile(join(dir, 'none')), { code: 'ERR_CONFIG_NOT_FOUND' });
});
