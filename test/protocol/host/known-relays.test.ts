import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Bundle } from '../../../protocol/bundle.ts';
import { newId } from '../../../protocol/id.ts';
import { relayListSchema, type RelayList } from '../../../protocol/relay-list.ts';
import { signStatement } from '../../../protocol/statement.ts';
import { createLogger } from '../../../protocol/host/log.ts';
import { KnownRelays } from '../../../protocol/host/known-relays.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();

function relay(url: string, changes: Partial<RelayList['relays'][number]> = {}) {
  return { id: newId('relay'), url, isControl: false, isDraining: false, ...changes };
}

function list(version: number, relays: RelayList['relays'] = [], key = pki.grantKey): string {
  return signStatement('relays', relayListSchema, { version, relays }, key);
}

async function newDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-known-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

function known(dir?: string, bundle = () => pki.bundle) {
  const logger = createLogger({ program: 'test', write: () => undefined });
  return new KnownRelays({
    ...(dir === undefined ? {} : { dir }),
    bundle,
    logger,
  });
}

test('KnownRelays - keeps the highest version and no older one', (t) => {
  const relays = known();
  const heard: number[] = [];
  relays.onChange(({ version }) => heard.push(version));
  t.true(relays.take(list(3)));
  t.false(relays.take(list(3)));
  t.false(relays.take(list(2, [relay('https://old:1')])));
  t.true(relays.take(list(4, [relay('https://new:1')])));
  t.deepEqual(
    relays.relays.map(({ url }) => url),
    ['https://new:1'],
  );
  t.deepEqual(heard, [3, 4]);
});

test('KnownRelays - believes the grant keys of the bundle alone', (t) => {
  const relays = known();
  t.throws(() => relays.take(list(9, [relay('https://evil:1')], pki.root)), {
    code: 'ERR_STATEMENT_REFUSED',
  });
  t.throws(() => relays.take(list(9).replace(/^relays/, 'time')), {
    code: 'ERR_STATEMENT_REFUSED',
  });
  t.is(relays.list, undefined);
});

test('KnownRelays - a list by a control plane that was removed holds back no other', (t) => {
  const removed = new TestPki();
  const { grantKeys } = pki.bundle;
  let bundle: Bundle = { ...pki.bundle, grantKeys: [...grantKeys, ...removed.bundle.grantKeys] };
  const relays = known(undefined, () => bundle);
  t.true(relays.take(list(2 ** 50, [relay('https://gone:1')], removed.grantKey)));
  t.false(relays.take(list(5)));
  bundle = pki.bundle;
  t.throws(() => relays.take(list(2 ** 51, [], removed.grantKey)), {
    code: 'ERR_STATEMENT_REFUSED',
  });
  t.true(relays.take(list(6, [relay('https://a:1')])));
  t.is(relays.list?.version, 6);
  t.false(relays.take(list(5)));
});

test('KnownRelays - names those that drain last', (t) => {
  const relays = known();
  relays.take(list(1, [relay('https://a:1', { isDraining: true }), relay('https://b:1')]));
  t.deepEqual(
    relays.relays.map(({ url }) => url),
    ['https://b:1', 'https://a:1'],
  );
});

test('KnownRelays - is there again at the next start, in a file of its own that is ours alone', async (t) => {
  const dir = await newDir(t);
  const before = known(dir);
  await before.load();
  t.is(before.list, undefined);
  before.take(list(7, [relay('https://a:1')]));
  before.noteLast('https://a:1');
  await before.saved();
  t.is((await stat(join(dir, 'relays.json'))).mode & 0o777, 0o600);
  const after = known(dir);
  await after.load();
  t.is(after.list?.version, 7);
  t.is(after.last, 'https://a:1');
  t.false(after.take(list(6)));
});

test('KnownRelays - takes a file that is damaged, or that a stranger signed, for none', async (t) => {
  const dir = await newDir(t);
  const path = join(dir, 'relays.json');
  const strangers = JSON.stringify({ format: 1, statement: list(7, [], pki.root), last: null });
  for (const text of ['{', '{"format":2}', strangers]) {
    await writeFile(path, text, { mode: 0o600 });
    const relays = known(dir);
    await relays.load();
    t.is(relays.list, undefined);
    t.true(relays.take(list(1)));
    await relays.saved();
    t.true((await readFile(path, 'utf8')).includes('"format":1'));
  }
});
