import { connect } from 'node:net';
import { once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import { donePage } from '../../../client/sign-in/answer-page.ts';
import { Loopback } from '../../../client/sign-in/loopback.ts';

async function listen(t: ExecutionContext): Promise<Loopback<string>> {
  const loopback = await Loopback.listen((query) =>
    query.get('sign_in') === 'ours' ? (query.get('ticket') ?? undefined) : undefined,
  );
  t.teardown(() => {
    loopback.close();
  });
  return loopback;
}

const urlOf = ({ port }: Loopback<string>, rest: string): string =>
  `http://127.0.0.1:${String(port)}${rest}`;

test('Loopback - takes what the browser brought, and has it say how that ended', async (t) => {
  const loopback = await listen(t);
  const answering = fetch(urlOf(loopback, '/?ticket=t1&sign_in=ours'));
  const arrival = await loopback.arrived;
  t.is(arrival.brought, 't1');
  await arrival.answer({ ...donePage, text: '<script>alert("&")</script>' });
  const answer = await answering;
  t.is(answer.status, 200);
  t.is(answer.headers.get('cache-control'), 'no-store');
  t.is(answer.headers.get('referrer-policy'), 'no-referrer');
  t.regex(
    answer.headers.get('content-security-policy') ?? '',
    /^default-src 'none'; style-src 'sha256-/,
  );
  const html = await answer.text();
  t.true(html.includes('&lt;script&gt;alert(&quot;&amp;&quot;)'));
  t.false(html.includes('<script'));
});

for (const [what, rest, init] of [
  ['another sign-in', '/?ticket=t1&sign_in=theirs', {}],
  ['no query', '/', {}],
  ['another path', '/x?ticket=t1&sign_in=ours', {}],
  ['another method', '/?ticket=t1&sign_in=ours', { method: 'POST' }],
] as const) {
  test(`Loopback - takes nothing from ${what}, and goes on waiting`, async (t) => {
    const loopback = await listen(t);
    t.is((await fetch(urlOf(loopback, rest), init)).status, 404);
    void fetch(urlOf(loopback, '/?ticket=good&sign_in=ours')).catch(() => undefined);
    t.is((await loopback.arrived).brought, 'good');
  });
}

test('Loopback - takes nothing by a name that was made to lead to this machine', async (t) => {
  const loopback = await listen(t);
  const socket = connect(loopback.port, '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.write('GET /?ticket=t1&sign_in=ours HTTP/1.1\r\nHost: evil.example\r\n\r\n');
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  t.regex(chunk.toString(), /^HTTP\/1\.1 404 /);
});

test('Loopback - takes one browser and no more, and listens on this machine alone', async (t) => {
  const loopback = await listen(t);
  const first = fetch(urlOf(loopback, '/?ticket=t1&sign_in=ours'));
  const arrival = await loopback.arrived;
  t.is((await fetch(urlOf(loopback, '/?ticket=t2&sign_in=ours'))).status, 404);
  await arrival.answer(donePage);
  await first;
  loopback.close();
  await t.throwsAsync(fetch(urlOf(loopback, '/')));
});

test('Loopback - a browser that says nothing does not keep the command from ending', async (t) => {
  const loopback = await listen(t);
  const socket = connect(loopback.port, '127.0.0.1');
  await once(socket, 'connect');
  const closed = once(socket, 'close');
  loopback.close();
  await t.notThrowsAsync(closed);
});
