import test, { type ExecutionContext } from 'ava';
import { dialControl } from '../../../client/agent/control-dial.ts';
import { RelayBook } from '../../../client/agent/relay-book.ts';
import { controlProtocol, newId, ZtnaError, type ErrorCode } from '../../../protocol/index.ts';
import { createLogger, KnownRelays } from '../../../protocol/host/index.ts';
import { startTestServer } from '../../support/control-server.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const identity = pki.dialIdentity(`ztna://device/${newId('device')}`);
const logger = createLogger({ program: 'test', write: () => undefined });

async function twoRelays(t: ExecutionContext): Promise<[string, string]> {
  const servers = [await startTestServer({ pki }), await startTestServer({ pki })] as const;
  t.teardown(() => Promise.all(servers.map((server) => server.stop())));
  return [servers[0].url, servers[1].url];
}

/** Opens a channel at each relay in turn; those that `codes` names fail with that. */
async function dial(urls: readonly string[], codes: Readonly<Record<string, ErrorCode>>) {
  const book = new RelayBook(new KnownRelays({ bundle: () => pki.bundle, logger }));
  return dialControl({
    urls,
    book,
    dial: (url) => ({ url, alpn: controlProtocol, serverRole: 'control-plane', identity }),
    open: async (url, socket) => {
      socket.destroy();
      const code = codes[url];
      if (code) throw new ZtnaError(code);
      return Promise.resolve(url);
    },
    logger,
    signal: new AbortController().signal,
  });
}

test('dialControl - passes over a control plane that says what its keys do not bear out', async (t) => {
  const [first, second] = await twoRelays(t);
  const { url } = await dial([first, second], { [first]: 'ERR_STATEMENT_REFUSED' });
  t.is(url, second);
});

test('dialControl - takes one control plane’s word that this machine was revoked', async (t) => {
  const [first, second] = await twoRelays(t);
  await t.throwsAsync(dial([first, second], { [first]: 'ERR_IDENTITY_REVOKED' }), {
    code: 'ERR_IDENTITY_REVOKED',
  });
});

test('dialControl - fails with what no other attempt mends rather than with what comes last', async (t) => {
  const [first, second] = await twoRelays(t);
  const codes = { [first]: 'ERR_STATEMENT_REFUSED', [second]: 'ERR_RELAY_UNAVAILABLE' } as const;
  await t.throwsAsync(dial([first, second], codes), { code: 'ERR_STATEMENT_REFUSED' });
});
