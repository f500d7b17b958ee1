import test from 'ava';
import { newId, ZtnaError } from '../../protocol/index.ts';
import { UsedGrants } from '../../connector/used-grants.ts';

function use(change: object = {}) {
  return {
    id: newId('grant'),
    tunnel: newId('tunnel'),
    generation: 1,
    expiresAtMs: 1_000,
    ...change,
  };
}

test('UsedGrants - refuses a second use of a grant, also under another tunnel', (t) => {
  const used = new UsedGrants();
  const id = newId('grant');
  used.use(use({ id }), 0);
  t.is(t.throws(() => used.use(use({ id }), 0), { instanceOf: ZtnaError }).code, 'ERR_GRANT_USED');
});

test('UsedGrants - refuses a second grant for the same path and takes one for the next', (t) => {
  const used = new UsedGrants();
  const tunnel = newId('tunnel');
  used.use(use({ tunnel }), 0);
  t.is(
    t.throws(() => used.use(use({ tunnel }), 0), { instanceOf: ZtnaError }).code,
    'ERR_GRANT_USED',
  );
  t.notThrows(() => used.use(use({ tunnel, generation: 2 }), 0));
});

test('UsedGrants - remembers past the expiry and then forgets', (t) => {
  const used = new UsedGrants();
  used.use(use(), 0);
  used.forget(1_000);
  t.is(used.size, 2);
  used.forget(20_000);
  t.is(used.size, 0);
});

test('UsedGrants - when full refuses rather than forget what is still usable', (t) => {
  const used = new UsedGrants(4);
  used.use(use(), 0);
  used.use(use(), 0);
  t.is(t.throws(() => used.use(use(), 0), { instanceOf: ZtnaError }).code, 'ERR_LIMIT_TUNNELS');
  t.notThrows(() => used.use(use({ expiresAtMs: 40_000 }), 20_000));
});
