import test from 'ava';
import { RiskBook, type RiskStore } from '../../../../relay/control-plane/risk/index.ts';
import { afterMs, event, hourMs, megabyte, officeWorker } from './history.ts';

const tenMs = afterMs + 10 * hourMs;

/** A store in memory, in which some user may be known. */
function memoryStore(known: Record<string, string> = {}) {
  const saved = new Map(Object.entries(known));
  let isDown = false;
  const store: RiskStore = {
    load: (user) => Promise.resolve(saved.get(user)),
    save: (user, json) => {
      if (isDown) return Promise.reject(new Error('down'));
      saved.set(user, json);
      return Promise.resolve();
    },
  };
  return { store, saved, setDown: (down: boolean) => (isDown = down) };
}

const burst = event({ kind: 'bytes', atMs: tenMs, bytesOut: 200 * megabyte, spanMs: 5_000 });

test('book - tells score and factors of a user it knows, and learns on', async (t) => {
  const { store } = memoryStore({ ada: officeWorker().toJson() });
  const told: string[] = [];
  const book = new RiskBook({
    store,
    onAlerts: (user, alerts) => told.push(user, ...alerts.map(({ name }) => name)),
  });
  await book.load('ada');
  t.deepEqual(book.of('ada', 'wiki', tenMs), { score: 0, factors: [], contributions: [] });
  await book.note(burst);
  const { score, factors } = book.of('ada', 'wiki', tenMs);
  t.is(score, 80);
  t.deepEqual(factors, ['bytes_out']);
  t.deepEqual(told, ['ada', 'bytes_out']);
});

test('book - the risk of a user who is not loaded is the highest', async (t) => {
  const { store } = memoryStore();
  const book = new RiskBook({ store: { ...store, load: () => Promise.reject(new Error('down')) } });
  t.is(book.of('ada', 'wiki', tenMs).score, 100);
  t.deepEqual(book.of('ada', 'wiki', tenMs).factors, ['risk_unknown']);
  await t.throwsAsync(book.load('ada'));
  t.is(book.of('ada', 'wiki', tenMs).score, 100);
});

test('book - what it learned outlives it, also when saving failed at first', async (t) => {
  const { store, setDown } = memoryStore({ ada: officeWorker().toJson() });
  const book = new RiskBook({ store });
  setDown(true);
  await book.note(burst);
  await t.throwsAsync(book.flush());
  setDown(false);
  await book.flush();
  const next = new RiskBook({ store });
  await next.load('ada');
  t.is(next.of('ada', 'wiki', tenMs).score, 80);
});

test('book - a profile that cannot be read is told of and learned anew', async (t) => {
  const { store } = memoryStore({ ada: '{}' });
  const unreadable: string[] = [];
  const book = new RiskBook({ store, onUnreadable: (user) => unreadable.push(user) });
  await Promise.all([book.load('ada'), book.load('ada')]);
  t.deepEqual(unreadable, ['ada']);
  t.is(book.of('ada', null, tenMs).score, 0);
});

test('book - lets go of who was asked about longest ago, and loses nothing', async (t) => {
  const { store, saved } = memoryStore();
  const book = new RiskBook({ store, maxProfiles: 2 });
  for (const user of ['ada', 'bob', 'cyd']) await book.note({ ...burst, user });
  t.is(saved.size, 0);
  await book.flush();
  t.is(book.of('ada', null, tenMs).score, 100);
  t.is(book.of('bob', null, tenMs).score, 0);
  t.deepEqual([...saved.keys()], ['ada', 'bob', 'cyd']);
});

test('book - a signal is saved at once', async (t) => {
  const { store, saved } = memoryStore();
  const book = new RiskBook({ store });
  await book.signal('ada', { id: 'idp', points: 70, untilMs: tenMs, detail: 'high' });
  t.is(book.of('ada', 'wiki', tenMs - 1).score, 70);
  t.regex(saved.get('ada') ?? '', /"idp"/);
});
