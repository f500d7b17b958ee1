import ava from 'ava';
import {
  policyDigest,
  readPolicy,
  storePolicy,
} from '../../../../relay/control-plane/policy/index.ts';
import { openTestStore, startMs, onEveryStore } from '../fixture.ts';
import { permitAll } from './policy-fixture.ts';

const test = onEveryStore(ava);

test('storePolicy - numbers versions upwards and keeps every one', async (t) => {
  const store = await openTestStore(t);
  t.is(await readPolicy(store.db), undefined);
  const store1 = (text: string) =>
    store.write((tx) =>
      storePolicy(tx, { files: { 'a.cedar': text }, actor: 'admin', nowMs: startMs }),
    );
  const first = await store1(permitAll);
  const second = await store1(`// é\n${permitAll}`);
  t.deepEqual([first.version, second.version], [1, 2]);
  t.deepEqual(await readPolicy(store.db), second);
  t.deepEqual(await readPolicy(store.db, 1), first);
  t.is(await readPolicy(store.db, 3), undefined);
});

test('policyDigest - depends on names and texts, not on their order', (t) => {
  t.is(policyDigest({ a: '1', b: '2' }), policyDigest({ b: '2', a: '1' }));
  t.not(policyDigest({ a: '1', b: '2' }), policyDigest({ a: '2', b: '1' }));
});
