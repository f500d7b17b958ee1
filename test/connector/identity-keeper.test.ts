import test from 'ava';
import { verifyBundle, ZtnaError } from '../../protocol/index.ts';
import { createLogger, type Identity } from '../../protocol/host/index.ts';
import { IdentityKeeper, type IdentityKeeperOptions } from '../../connector/identity-keeper.ts';
import { TestCa } from '../support/pki.ts';
import { Parties, startMs } from './fixture.ts';

const parties = new Parties();
const ca = new TestCa();
const hourMs = 3_600_000;

/** An identity whose certificate began and ends that far from now. */
function identity(beganMs: number, endsMs: number): Identity {
  const { certificatePem } = ca.issue({
    notBefore: new Date(Date.now() + beganMs),
    notAfter: new Date(Date.now() + endsMs),
  });
  const bundle = { ...parties.bundle, authorities: [ca.certificatePem] };
  return { id: parties.connector, certificatePem, bundle } as unknown as Identity;
}

const fresh = () => identity(0, 2 * hourMs);
const stale = () => identity(-2 * hourMs, hourMs);

function keeperOf(
  options: Partial<IdentityKeeperOptions> & Pick<IdentityKeeperOptions, 'identity'>,
): { keeper: IdentityKeeper; saved: Identity[] } {
  const saved: Identity[] = [];
  const keeper = new IdentityKeeper({
    dir: '/nowhere',
    logger: createLogger({ program: 'test', write: () => undefined }),
    renew: () => Promise.reject(new Error('not asked to renew')),
    save: (_dir, next) => {
      saved.push(next);
      return Promise.resolve();
    },
    onRevoked: () => undefined,
    ...options,
  });
  return { keeper, saved };
}

test('IdentityKeeper - leaves a certificate alone before half of its life', async (t) => {
  const { keeper, saved } = keeperOf({ identity: fresh() });
  await keeper.start();
  keeper.stop();
  t.is(saved.length, 0);
});

test('IdentityKeeper - renews after half of its life and uses it only once it is saved', async (t) => {
  const before = stale();
  const next = fresh();
  const used: string[] = [];
  const { keeper } = keeperOf({
    identity: before,
    renew: () => Promise.resolve(next),
    save: () => {
      used.push(keeper.identity.certificatePem);
      return Promise.resolve();
    },
  });
  await keeper.start();
  keeper.stop();
  t.deepEqual(used, [before.certificatePem]);
  t.is(keeper.identity.certificatePem, next.certificatePem);
});

test('IdentityKeeper - goes on with the old certificate when the new one cannot be saved', async (t) => {
  const before = stale();
  const { keeper } = keeperOf({
    identity: before,
    renew: () => Promise.resolve(fresh()),
    save: () => Promise.reject(new Error('disk full')),
  });
  await keeper.start();
  keeper.stop();
  t.is(keeper.identity.certificatePem, before.certificatePem);
});

test('IdentityKeeper - says when the relay has revoked it', async (t) => {
  const revoked: ZtnaError[] = [];
  const { keeper } = keeperOf({
    identity: stale(),
    renew: () => Promise.reject(new ZtnaError('ERR_IDENTITY_REVOKED')),
    onRevoked: (error) => revoked.push(error),
  });
  await keeper.start();
  keeper.stop();
  t.is(revoked[0]?.code, 'ERR_IDENTITY_REVOKED');
});

test('IdentityKeeper - keeps a newer bundle and ignores an older one', async (t) => {
  const { keeper, saved } = keeperOf({ identity: fresh() });
  const { rootId } = parties.bundle;
  const bundle = (version: number) =>
    verifyBundle(parties.signBundle({ version }), { rootId, minVersion: 0 }, startMs);
  await keeper.takeBundle(bundle(3));
  await keeper.takeBundle(bundle(2));
  t.is(keeper.identity.bundle.version, 3);
  t.is(saved.length, 1);
});

test('IdentityKeeper - renews at once when a newer bundle names its issuer no more', async (t) => {
  const renewed = Promise.withResolvers<undefined>();
  const next = { ...fresh(), bundle: { ...fresh().bundle, version: 3 } };
  const { keeper } = keeperOf({
    identity: fresh(),
    renew: () => {
      renewed.resolve(undefined);
      return Promise.resolve(next);
    },
  });
  await keeper.start();
  const { rootId } = parties.bundle;
  const statement = parties.signBundle({ version: 2 }); // names the CA of the other fixture alone
  await keeper.takeBundle(verifyBundle(statement, { rootId, minVersion: 0 }, startMs));
  await renewed.promise;
  keeper.stop();
  t.pass();
});

test('IdentityKeeper.renewRefused - renews once, however often a relay refuses', async (t) => {
  let count = 0;
  const { keeper } = keeperOf({
    identity: fresh(),
    renew: () => {
      count++;
      return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    },
  });
  await keeper.renewRefused();
  await keeper.renewRefused();
  keeper.stop();
  t.is(count, 1);
});
