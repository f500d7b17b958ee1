import test from 'ava';
import { request } from 'node:http';
import { ZtnaError } from '../../protocol/index.ts';
import { parseAdminAddress, startAdminListener } from '../../connector/admin-listener.ts';
import { Metrics } from '../../connector/metrics.ts';

for (const [text, host, port] of [
  ['9081', '127.0.0.1', 9081],
  ['127.0.0.1:0', '127.0.0.1', 0],
  ['127.9.9.9:1', '127.9.9.9', 1],
  ['[::1]:9081', '::1', 9081],
] as const) {
  test(`parseAdminAddress - reads ${text}`, (t) => {
    t.deepEqual(parseAdminAddress(text), { host, port });
  });
}

for (const text of [
  '',
  'x',
  '0.0.0.0:1',
  '10.0.0.1:1',
  '[::]:1',
  'localhost:1',
  '127.0.0.1:65536',
]) {
  test(`parseAdminAddress - refuses "${text}"`, (t) => {
    const error = t.throws(() => parseAdminAddress(text), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_USAGE');
  });
}

interface Answer {
  readonly status: number | undefined;
  readonly text: string;
}

function ask(port: number, path: string, options: object = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, ...options }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        resolve({ status: response.statusCode, text });
      });
    })
      .on('error', reject)
      .end();
  });
}

test('startAdminListener - tells life, readiness and metrics, and nothing to strangers', async (t) => {
  let problems = ['no control channel', 'relay rel_1 is wedged'];
  const metrics = new Metrics();
  metrics.count('app_dials_total', { outcome: 'connected' }, 3);
  const listener = await startAdminListener(
    { host: '127.0.0.1', port: 0 },
    {
      problems: () => problems,
      metrics: () =>
        metrics.render({ tunnels_open: 2 }, [
          ['wiki', true],
          ['db', false],
        ]),
    },
  );
  t.teardown(() => listener.stop());
  const { port } = listener;
  t.is((await ask(port, '/livez')).status, 200);
  t.deepEqual(await ask(port, '/readyz'), {
    status: 503,
    text: 'not ready\nno control channel\nrelay rel_1 is wedged\n',
  });
  problems = [];
  t.is((await ask(port, '/readyz')).status, 200);
  const { text } = await ask(port, '/metrics');
  t.regex(text, /^ztna_connector_app_dials_total\{outcome="connected"\} 3$/m);
  t.regex(text, /^ztna_connector_tunnels_open 2$/m);
  t.regex(text, /^ztna_connector_app_up\{app="wiki"\} 1$/m);
  t.regex(text, /^ztna_connector_app_up\{app="db"\} 0$/m);
  t.is((await ask(port, '/other')).status, 404);
  t.is((await ask(port, '/livez', { method: 'POST' })).status, 405);
  t.is((await ask(port, '/livez', { headers: { host: 'evil.example' } })).status, 403);
  t.is((await ask(port, '/livez', { headers: { host: `localhost:${port}` } })).status, 200);
});

test('startAdminListener - names what is wrong when the port is taken', async (t) => {
  const options = { problems: () => [], metrics: () => '' };
  const first = await startAdminListener({ host: '127.0.0.1', port: 0 }, options);
  t.teardown(() => first.stop());
  const error = await t.throwsAsync(
    startAdminListener({ host: '127.0.0.1', port: first.port }, options),
    { instanceOf: ZtnaError },
  );
  t.is(error.code, 'ERR_CLIENT_PORT_BUSY');
});
