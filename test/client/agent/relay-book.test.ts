import test from 'ava';
import { newId } from '../../../protocol/id.ts';
import { relayListSchema, type ListedRelay } from '../../../protocol/relay-list.ts';
import { signStatement } from '../../../protocol/statement.ts';
import { createLogger } from '../../../protocol/host/log.ts';
import { KnownRelays } from '../../../protocol/host/known-relays.ts';
import { RelayBook } from '../../../client/agent/relay-book.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();

function relay(name: string, changes: Partial<ListedRelay> = {}): ListedRelay {
  return {
    id: newId('relay'),
    url: `https://${name}:1`,
    isControl: false,
    isDraining: false,
    ...changes,
  };
}

function bookOf(relays: ListedRelay[] = []) {
  let nowMs = 0;
  const logger = createLogger({ program: 'test', write: () => undefined });
  const known = new KnownRelays({ bundle: () => pki.bundle, logger });
  if (relays.length > 0) {
    known.take(signStatement('relays', relayListSchema, { version: 1, relays }, pki.grantKey));
  }
  return {
    known,
    book: new RelayBook(known, () => nowMs),
    pass: (ms: number) => {
      nowMs += ms;
    },
  };
}

const names = (relays: readonly { readonly url: string }[]) =>
  relays.map(({ url }) => new URL(url).hostname);

test('RelayBook - puts the relay first by which both ends are nearest', (t) => {
  const [a, b, c] = [relay('a'), relay('b'), relay('c')];
  const { book } = bookOf([a, b, c]);
  book.noteConnected(a.url, 20); // 10 ms away
  book.noteConnected(b.url, 100);
  book.noteConnected(c.url, 60);
  t.deepEqual(
    names(
      book.order([
        { ...a, connectorMs: 100 },
        { ...b, connectorMs: 10 },
        { ...c, connectorMs: 10 },
      ]),
    ),
    ['c', 'b', 'a'],
  );
});

test('RelayBook - keeps the control plane’s order where nothing is known, and gives an unknown relay its chance', (t) => {
  const [a, b] = [relay('a'), relay('b')];
  const { book } = bookOf();
  t.deepEqual(names(book.order([b, a])), ['b', 'a']);
  book.noteConnected(a.url, 50);
  const offered = [
    { ...a, connectorMs: 30 },
    { ...b, connectorMs: 5 },
  ];
  t.deepEqual(names(book.order(offered)), ['b', 'a']);
});

test('RelayBook - stays where it is unless another relay is clearly nearer', (t) => {
  const [a, b] = [relay('a'), relay('b')];
  const { book } = bookOf();
  book.noteConnected(a.url, 100); // 50 ms
  book.noteConnected(b.url, 80); // 40 ms
  book.noteInUse(a.url);
  t.deepEqual(names(book.order([b, a])), ['a', 'b']);
  book.noteConnected(b.url, 40); // 20 ms
  t.deepEqual(names(book.order([a, b])), ['b', 'a']);
});

test('RelayBook - puts last, and asks to avoid, what failed just now and what drains', (t) => {
  const [a, b, c] = [relay('a'), relay('b'), relay('c', { isDraining: true })];
  const { book, pass } = bookOf([a, b, c]);
  book.noteConnected(a.url, 2);
  book.noteConnected(b.url, 200);
  book.noteFailed(a.url);
  t.is(names(book.order([a, b, c]))[0], 'b');
  t.deepEqual(book.avoided(), [a.id, c.id]);
  pass(10_000);
  t.is(names(book.order([a, b, c]))[0], 'a');
  t.deepEqual(book.avoided(), [c.id]);
});

test('RelayBook - dials the control channel where it was last, then by the list', (t) => {
  const [a, b, c] = [relay('a'), relay('b', { isControl: true }), relay('c')];
  const { book, known } = bookOf([a, b, c]);
  known.noteLast(c.url);
  const hosts = () => book.controlUrls(a.url).map((url) => new URL(url).hostname);
  t.deepEqual(hosts(), ['c', 'a', 'b']);
  book.noteFailed(c.url);
  t.deepEqual(hosts(), ['a', 'b', 'c']);
  known.noteLast('https://gone:1');
  t.deepEqual(hosts(), ['a', 'b', 'c']);
});

test('RelayBook - dials where it was enrolled while no list is known, and still when the list leaves that out', (t) => {
  t.deepEqual(bookOf().book.controlUrls('https://first:1'), ['https://first:1']);
  const { book } = bookOf([relay('a')]);
  t.deepEqual(book.controlUrls('https://first:1'), ['https://a:1', 'https://first:1']);
});
