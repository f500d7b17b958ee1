import { X509Certificate } from 'node:crypto';
import {
  chmodSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import {
  newId,
  rosterEntrySchema,
  verifyBundle,
  verifyStatement,
  verifyingKey,
} from '../../../../protocol/index.ts';
import {
  certificateIdentity,
  createCertificateRequest,
  createTlsKey,
} from '../../../../protocol/host/index.ts';
import {
  backdateMs,
  createAuthority,
  loadAuthority,
} from '../../../../relay/control-plane/authority/index.ts';
import { temporaryDirectory } from '../fixture.ts';

const nowMs = Date.now();
const dayMs = 86_400_000;

test('createAuthority - makes keys that only their owner can read, and that load again', async (t) => {
  const directory = join(temporaryDirectory(t), 'control-plane');
  const made = await createAuthority({ directory, nowMs });
  t.is(statSync(directory).mode & 0o777, 0o700);
  for (const file of readdirSync(directory)) {
    const expected = file.endsWith('.key') ? 0o600 : 0o644;
    t.is(statSync(join(directory, file)).mode & 0o777, expected, file);
  }
  const loaded = await loadAuthority(directory);
  t.is(loaded.rootId, made.rootId);
  t.is(loaded.certificatePem, made.certificatePem);
  t.is(loaded.grantKey.keyId, made.grantKey.keyId);
  t.not(loaded.grantKey.keyId, loaded.rosterKey.keyId);
});

test('createAuthority - touches nothing when a key is there already', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'audit.key'), 'mine', { mode: 0o600 });
  await t.throwsAsync(createAuthority({ directory, nowMs }), { code: 'ERR_CONFIG_EXISTS' });
  t.deepEqual(readdirSync(directory), ['audit.key']);
  t.is(readFileSync(join(directory, 'audit.key'), 'utf8'), 'mine');
});

test('loadAuthority - names the file that is missing, open to others, or no such key', async (t) => {
  const directory = temporaryDirectory(t);
  await createAuthority({ directory, nowMs });
  const grantKey = join(directory, 'grant.key');
  chmodSync(grantKey, 0o640);
  const wide = await t.throwsAsync(loadAuthority(directory), { code: 'ERR_CONFIG_PERMISSIONS' });
  t.true(wide.message.includes('grant.key'));
  chmodSync(grantKey, 0o600);
  const pem = readFileSync(grantKey);
  writeFileSync(grantKey, readFileSync(join(directory, 'ca.key')));
  await t.throwsAsync(loadAuthority(directory), { code: 'ERR_CONFIG_INVALID' });
  writeFileSync(grantKey, 'not a key');
  const invalid = await t.throwsAsync(loadAuthority(directory), { code: 'ERR_CONFIG_INVALID' });
  t.false(JSON.stringify(invalid).includes('not a key'));
  rmSync(grantKey);
  await t.throwsAsync(loadAuthority(directory), { code: 'ERR_CONFIG_NOT_FOUND' });
  writeFileSync(grantKey, pem, { mode: 0o600 });
  await t.notThrowsAsync(loadAuthority(directory));
});

test('loadAuthority - refuses a certificate that is not for its key', async (t) => {
  const [one, other] = [temporaryDirectory(t), temporaryDirectory(t)];
  await createAuthority({ directory: one, nowMs });
  await createAuthority({ directory: other, nowMs });
  renameSync(join(other, 'ca.pem'), join(one, 'ca.pem'));
  await t.throwsAsync(loadAuthority(one), { code: 'ERR_CONFIG_INVALID' });
});

test('signBundle - makes what verifyBundle takes from this root alone', async (t) => {
  const directory = temporaryDirectory(t);
  const authority = await createAuthority({ directory, nowMs });
  const statement = authority.signBundle({ version: 3, notAfterMs: nowMs + dayMs });
  const bundle = verifyBundle(statement, { rootId: authority.rootId, minVersion: 3 }, nowMs);
  t.is(bundle.grantKeys[0]?.keyId, authority.grantKey.keyId);
  t.deepEqual(bundle.authorities, [authority.certificatePem]);
  const other = await createAuthority({ directory: temporaryDirectory(t), nowMs });
  t.throws(() => verifyBundle(statement, { rootId: other.rootId, minVersion: 1 }, nowMs), {
    code: 'ERR_STATEMENT_REFUSED',
  });
});

test('signBundle - cannot while the root key is elsewhere; everything else can', async (t) => {
  const directory = temporaryDirectory(t);
  const { rootId } = await createAuthority({ directory, nowMs });
  rmSync(join(directory, 'root.key'));
  const authority = await loadAuthority(directory);
  t.is(authority.rootId, rootId);
  t.false(authority.hasRoot);
  t.throws(() => authority.signBundle({ version: 1, notAfterMs: nowMs + dayMs }), {
    code: 'ERR_CONFIG_NOT_FOUND',
  });
  const entry = {
    connector: newId('connector'),
    site: newId('site'),
    noiseKey: Buffer.alloc(32, 1).toString('base64url'),
    signingKey: Buffer.alloc(32, 2).toString('base64url'),
    apps: [newId('app')],
  };
  const key = verifyingKey(
    Buffer.from(authority.rosterKey.privateKey.export({ format: 'jwk' }).x ?? '', 'base64url'),
  );
  const statement = authority.signRosterEntry(entry);
  t.deepEqual(verifyStatement('roster', rosterEntrySchema, statement, [key]), entry);
});

test('issueFromRequest - states the role and id it was told, not what the request says', async (t) => {
  const authority = await createAuthority({ directory: temporaryDirectory(t), nowMs });
  const ca = new X509Certificate(authority.certificatePem);
  t.true(ca.ca);
  const request = await createCertificateRequest(await createTlsKey());
  const id = newId('device');
  const issued = await authority.issueFromRequest(request, {
    role: 'device',
    id,
    hosts: ['relay.example.com'], // a device is no server: ignored
    lifeMs: dayMs,
    nowMs,
  });
  const leaf = new X509Certificate(issued.pem);
  t.deepEqual(certificateIdentity(leaf), { role: 'device', id });
  t.is(leaf.subjectAltName, `URI:ztna://device/${id}`);
  t.is(leaf.subject, `CN=${id}`);
  t.true(leaf.verify(ca.publicKey));
  t.true(leaf.checkIssued(ca));
  t.false(leaf.ca);
  t.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.2']);
  t.is(leaf.serialNumber.toLowerCase(), issued.serial);
  t.is(leaf.validToDate.getTime(), issued.notAfterMs);
  t.true(Math.abs(leaf.validFromDate.getTime() - (nowMs - backdateMs)) <= 1_000);
  t.true(backdateMs >= 600_000);
});

test('issueFromRequest - names the hosts of a server and lets it be client and server', async (t) => {
  const authority = await createAuthority({ directory: temporaryDirectory(t), nowMs });
  const request = await createCertificateRequest(await createTlsKey());
  const wish = { role: 'data-plane', id: newId('relay'), lifeMs: dayMs, nowMs } as const;
  const hosts = ['relay.example.com', '127.0.0.1', '::1'];
  const leaf = new X509Certificate(
    (await authority.issueFromRequest(request, { ...wish, hosts })).pem,
  );
  t.is(leaf.checkHost('relay.example.com'), 'relay.example.com');
  t.is(leaf.checkIP('127.0.0.1'), '127.0.0.1');
  t.is(leaf.checkIP('::1'), '::1');
  t.is(leaf.checkHost('other.example.com'), undefined);
  t.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.2', '1.3.6.1.5.5.7.3.1']);
  for (const host of ['*.example.com', 'a b', 'x,y', 'host\0', '-a', '']) {
    await t.throwsAsync(authority.issueFromRequest(request, { ...wish, hosts: [host] }), {
      code: 'ERR_CONFIG_INVALID',
    });
  }
});

test('issueFromRequest - never outlives its authority and takes no id but one of ours', async (t) => {
  const authority = await createAuthority({ directory: temporaryDirectory(t), nowMs });
  const request = await createCertificateRequest(await createTlsKey());
  const issued = await authority.issueFromRequest(request, {
    role: 'connector',
    id: newId('connector'),
    lifeMs: 100 * 365 * dayMs,
    nowMs,
  });
  const ca = new X509Certificate(authority.certificatePem);
  t.is(issued.notAfterMs, ca.validToDate.getTime());
  for (const id of ['', 'admin', 'dev_x', 'dev_1/../cp', `${newId('device')},URI:x`]) {
    await t.throwsAsync(
      authority.issueFromRequest(request, { role: 'device', id, lifeMs: dayMs, nowMs }),
      { code: 'ERR_INTERNAL' },
    );
  }
});
