import test from 'ava';
import { ZtnaError } from '../../protocol/index.ts';
import { parseListenAddress, parseRelayConfig } from '../../relay/config.ts';
import { relayConfigText } from '../../relay/cli/relay-yaml.ts';

function refusal(text: string): { code: string; message: string; hint: string | undefined } {
  try {
    parseRelayConfig(text);
  } catch (error) {
    if (!(error instanceof ZtnaError)) throw error;
    const { code, message, hint } = error;
    return { code, message, hint };
  }
  throw new Error('it was accepted');
}

test('parseRelayConfig - fills in what the file leaves out', (t) => {
  t.deepEqual(parseRelayConfig('url: https://relay.example.com:8443\n'), {
    url: 'https://relay.example.com:8443',
    storeUrl: null,
    listen: { host: '0.0.0.0', port: 8443 },
    adminListen: null,
    enrolmentMode: 'invite',
    maxDevicesPerUser: 3,
    session: { idleMs: 43_200_000, absoluteMs: 86_400_000 },
    verification: { intervalMs: 20_000, holdMs: 300_000 },
    posture: { maxAgeMs: 45_000, checks: [] },
    drainMs: 25_000,
    risk: { geo: { city: null, asn: null } },
    apps: {},
    signals: { receive: [], transmit: [], webhooks: [] },
    tls: null,
    passkeyDomain: null,
  });
});

test('parseRelayConfig - reads streams, receivers and webhooks of signals', (t) => {
  const { signals } = parseRelayConfig(`
url: https://relay.example.com:443
signals:
  receive:
    - name: idp
      issuer: https://idp.example.com
      audience: https://relay.example.com
      keys: https://idp.example.com/jwks
      push: { token: file:/etc/ztna/idp-push }
      poll: { url: https://idp.example.com/poll, token: file:/etc/ztna/idp-poll, interval: 10s }
      subjects: { email: local_part, domains: [Example.com], map: file:/etc/ztna/subjects.json }
      riskFor: 1h
    - name: mdm
      issuer: mdm
      audience: us
      keys: file:/etc/ztna/mdm.jwks
      push: { token: file:/etc/ztna/mdm-push }
  transmit:
    - { name: siem, url: https://siem.example.com/events, audience: siem, emailDomain: example.com }
  webhooks:
    - { name: chat, url: https://10.0.0.5/hook, secret: file:/etc/ztna/hook, allowPrivate: true, ca: file:/etc/ca.pem }
`);
  const outside = { allowPrivate: false, caFile: null };
  t.deepEqual(signals.receive[0], {
    ...{ name: 'idp', issuer: 'https://idp.example.com', audience: 'https://relay.example.com' },
    keys: { url: 'https://idp.example.com/jwks', ...outside },
    pushTokenFile: '/etc/ztna/idp-push',
    poll: {
      ...{ url: 'https://idp.example.com/poll', ...outside },
      ...{ tokenFile: '/etc/ztna/idp-poll', everyMs: 10_000 },
    },
    subjects: {
      email: 'local_part',
      domains: ['example.com'],
      mapFile: '/etc/ztna/subjects.json',
    },
    ...{ maxAgeMs: 86_400_000, riskMs: 3_600_000 },
  });
  t.deepEqual(signals.receive[1]?.keys, { file: '/etc/ztna/mdm.jwks' });
  t.deepEqual(signals.receive[1]?.subjects, { email: null, domains: [], mapFile: null });
  t.like(signals.transmit[0], { name: 'siem', tokenFile: null, emailDomain: 'example.com' });
  t.deepEqual(signals.webhooks[0], {
    ...{ name: 'chat', url: 'https://10.0.0.5/hook', secretFile: '/etc/ztna/hook' },
    ...{ allowPrivate: true, caFile: '/etc/ca.pem' },
  });
});

const stream = 'name: idp, issuer: i, audience: a, keys: "file:/k", push: { token: "file:/t" }';
for (const [what, section, message] of [
  ['a list that is none', 'receive: { name: x }', /must be a list/],
  [
    'a stream without keys',
    'receive: [{ name: idp, issuer: i, audience: a, push: { token: "file:/t" } }]',
    /must have a keys/,
  ],
  [
    'a stream that neither pushes nor is polled',
    'receive: [{ name: idp, issuer: i, audience: a, keys: "file:/k" }]',
    /a push or a poll/,
  ],
  ['a secret in the file', `receive: [{ ${stream.replace('file:/t', 'secret')} }]`, /file:\/PATH/],
  ['plain http', `receive: [{ ${stream.replace('file:/k', 'http://idp/jwks')} }]`, /https:/],
  [
    'a password in an URL',
    `receive: [{ ${stream.replace('file:/k', 'https://u:p@idp/jwks')} }]`,
    /no password/,
  ],
  ['two streams of one name', `receive: [{ ${stream} }, { ${stream} }]`, /as another is/],
  [
    'names before the @ of every domain',
    `receive: [{ ${stream}, subjects: { email: local_part } }]`,
    /needs domains/,
  ],
  ['a key that nobody knows', `receive: [{ ${stream}, pol: {} }]`, /unknown key/],
  [
    'a name that is none',
    `webhooks: [{ name: "a b", url: "https://x", secret: "file:/s" }]`,
    /lower-case/,
  ],
  [
    'something else than true',
    `webhooks: [{ name: a, url: "https://x", secret: "file:/s", allowPrivate: yes }]`,
    /true or false/,
  ],
] as const) {
  test(`parseRelayConfig - refuses ${what} in signals, naming the line`, (t) => {
    const refused = refusal(`url: https://a:1\nsignals:\n  ${section}\n`);
    t.is(refused.code, 'ERR_CONFIG_INVALID');
    t.regex(refused.message, message);
    t.regex(refused.message, /^relay\.yaml:3: /);
    t.false(refused.message.includes('u:p'));
  });
}

test('parseRelayConfig - reads which certificate others are shown, from where the file lies', (t) => {
  const read = (tls: string) =>
    parseRelayConfig(`url: https://a:1\n${tls}\n`, '/srv/relay/relay.yaml').tls;
  t.deepEqual(read('tls: { cert: pages/cert.pem, key: /etc/ztna/key.pem }'), {
    certFile: '/srv/relay/pages/cert.pem',
    keyFile: '/etc/ztna/key.pem',
  });
  t.is(read('tls: { cert: a, key: "file:/k" }')?.keyFile, '/k');
  t.is(read(''), null);
  for (const half of [
    'tls: { cert: a }',
    'tls: { key: b }',
    'tls: {}',
    'tls: { cert: a, key: b, ca: c }',
  ]) {
    t.is(refusal(`url: https://a:1\n${half}\n`).code, 'ERR_CONFIG_INVALID', half);
  }
});

test('parseRelayConfig - reads every key that does something', (t) => {
  const config = parseRelayConfig(`
url: https://relay.example.com:443/
listen: "[::]:443"
adminListen: 127.0.0.1:9080
store: sqlite
enrolment: { mode: sso-approve, maxDevicesPerUser: 5 }
session: { idle: 30m, absolute: 400d }
verification: { interval: 5s, holdFor: 10m }
drainFor: 1m
apps:
  db.prod: { verification: { interval: 1s } }
  wiki: { verification: { holdFor: 30s } }
`);
  t.is(config.url, 'https://relay.example.com:443');
  t.deepEqual(config.listen, { host: '::', port: 443 });
  t.deepEqual(config.adminListen, { host: '127.0.0.1', port: 9080 });
  t.is(config.enrolmentMode, 'sso-approve');
  t.is(config.maxDevicesPerUser, 5);
  t.deepEqual(config.session, { idleMs: 1_800_000, absoluteMs: 34_560_000_000 });
  t.deepEqual(config.verification, { intervalMs: 5_000, holdMs: 600_000 });
  t.is(config.drainMs, 60_000);
  t.deepEqual(config.apps, { 'db.prod': { intervalMs: 1_000 }, wiki: { holdMs: 30_000 } });
});

test('parseRelayConfig - names line and nearest known word of an unknown key, also inside', (t) => {
  t.deepEqual(refusal('url: https://a:1\n\nsesion: { idle: 1h }\n'), {
    code: 'ERR_CONFIG_INVALID',
    message: 'relay.yaml:3: unknown key "sesion"',
    hint: 'did you mean session?',
  });
  t.deepEqual(refusal('url: https://a:1\nsession:\n  idle: 1h\n  absolut: 2h\n'), {
    code: 'ERR_CONFIG_INVALID',
    message: 'relay.yaml:4: unknown key "session.absolut"',
    hint: 'did you mean absolute?',
  });
});

test('parseRelayConfig - takes the URL of a PostgreSQL store, and repeats it in no error', (t) => {
  const storeUrl = 'postgres://ztna:se%23cret@db.example.com/ztna?sslmode=verify-full#x';
  t.is(parseRelayConfig(relayConfigText('https://a:1', storeUrl)).storeUrl, storeUrl);
  const wrong = refusal('url: https://a:1\nstore: mysql://ztna:secret@db/ztna\n');
  t.is(wrong.code, 'ERR_CONFIG_INVALID');
  t.notRegex(JSON.stringify(wrong), /secret/);
});

test('parseRelayConfig - finds the files of risk.geo from where it lies itself', (t) => {
  const text = 'url: https://a:1\nrisk: { geo: { city: geo/city.mmdb, asn: /srv/asn.mmdb } }\n';
  const { geo } = parseRelayConfig(text, '/etc/ztna/relay.yaml').risk;
  t.deepEqual(geo, { city: '/etc/ztna/geo/city.mmdb', asn: '/srv/asn.mmdb' });
  const one = parseRelayConfig('url: https://a:1\nrisk: { geo: { asn: /srv/asn.mmdb } }\n').risk;
  t.deepEqual(one.geo, { city: null, asn: '/srv/asn.mmdb' });
});

test("parseRelayConfig - reads a deployment's own posture checks", (t) => {
  const sha256 = 'ab'.repeat(32);
  const { posture } = parseRelayConfig(`
url: https://relay.example.com:443
posture:
  maxAge: 30s
  checks:
    - { id: edr, process: falcon-sensor }
    - { id: no_torrent, noProcess: qbittorrent }
    - { id: corp_file, file: /etc/corp/enrolled, sha256: ${sha256.toUpperCase()} }
    - { id: no_jail, noFile: /Applications/Cydia.app }
    - { id: joined, registry: HKLM\\SOFTWARE\\Corp, value: Domain, equals: corp }
`);
  t.deepEqual(posture, {
    maxAgeMs: 30_000,
    checks: [
      { kind: 'process', id: 'edr', name: 'falcon-sensor' },
      { kind: 'no_process', id: 'no_torrent', name: 'qbittorrent' },
      { kind: 'file', id: 'corp_file', path: '/etc/corp/enrolled', sha256 },
      { kind: 'no_file', id: 'no_jail', path: '/Applications/Cydia.app' },
      {
        kind: 'registry',
        id: 'joined',
        key: 'HKLM\\SOFTWARE\\Corp',
        value: 'Domain',
        equals: 'corp',
      },
    ],
  });
});

test('parseRelayConfig - refuses posture checks that it cannot mean, naming their line', (t) => {
  for (const check of [
    '{ process: x }',
    '{ id: edr }',
    '{ id: Edr, process: x }',
    '{ id: firewall, process: x }',
    '{ id: age_seconds, process: x }',
    '{ id: a, process: x, file: /y }',
    '{ id: a, file: relative }',
    '{ id: a, file: /x, sha256: abc }',
    '{ id: a, process: x, sha256: abc }',
    '{ id: a, registry: SOFTWARE }',
    '{ id: a, process: x, equals: y }',
    '{ id: a, process: x, run: y }',
  ]) {
    const { code, message } = refusal(`url: https://a:1\nposture:\n  checks:\n    - ${check}\n`);
    t.is(code, 'ERR_CONFIG_INVALID', check);
    t.regex(message, /^relay\.yaml:4: /, check);
  }
  const twice =
    'url: https://a:1\nposture: { checks: [{ id: a, process: x }, { id: a, process: y }] }\n';
  t.is(refusal(twice).code, 'ERR_CONFIG_INVALID');
});

test('parseRelayConfig - says of keys without a part behind them that they are not available yet', (t) => {
  for (const line of ['proxyProtocol: { from: [10.0.0.0/8] }', 'audit: { keep: 400d }']) {
    const { code, message } = refusal(`url: https://a:1\n${line}\n`);
    t.is(code, 'ERR_CONFIG_NOT_AVAILABLE', line);
    t.regex(message, /^relay\.yaml:2: .+ is not available yet$/);
  }
});

test('parseRelayConfig - takes a domain for passkeys that the relay is of, and no other', (t) => {
  const read = (domain: string) =>
    parseRelayConfig(`url: https://eu.relay.example.com:8443\npasskeys: { domain: ${domain} }\n`);
  for (const domain of ['eu.relay.example.com', 'relay.example.com', 'Example.com']) {
    t.is(read(domain).passkeyDomain, domain.toLowerCase());
  }
  for (const domain of [
    'com',
    'le.com',
    'other.example.com',
    'x.eu.relay.example.com',
    '10.0.0.1',
  ]) {
    const error = t.throws(() => read(domain)) as { code?: string };
    t.is(error.code, 'ERR_CONFIG_INVALID', domain);
  }
});

test('parseRelayConfig - refuses values that it cannot mean', (t) => {
  for (const line of [
    'url: http://a:1',
    'url: https://a:1/path',
    'url: https://user@a:1',
    'listen: 0.0.0.0',
    'listen: example.com:443',
    'listen: 0.0.0.0:70000',
    'adminListen: 0.0.0.0:9080',
    'store: mysql',
    'session: 12h',
    'session: { idle: soon }',
    'session: { idle: 1s }',
    'verification: { interval: 500ms }',
    'verification: { interval: 21s }',
    'verification: { holdFor: 100ms }',
    'verification: { holdFor: 2h }',
    'drainFor: 0s',
    'drainFor: 1h',
    'enrolment: { mode: open }',
    'enrolment: { maxDevicesPerUser: 0 }',
    'enrolment: { maxDevicesPerUser: }',
    'apps: { "no spaces": { verification: { interval: 1s } } }',
    'apps: { wiki: {} }',
    'risk: { geo: { country: a.mmdb } }',
    'risk: { geo: { city: } }',
    'risk: { geo: a.mmdb }',
  ]) {
    const text = line.startsWith('url') ? line : `url: https://a:1\n${line}`;
    const { code, message } = refusal(text);
    t.is(code, 'ERR_CONFIG_INVALID', line);
    t.regex(message, /^relay\.yaml:\d+: /);
  }
});

test('parseRelayConfig - refuses what is not one plain mapping', (t) => {
  for (const text of [
    '',
    '- a',
    'url: [',
    'url: https://a:1\nurl: https://b:1\n',
    'listen: 1:2',
    '*x',
    'a: &a [*a]',
  ]) {
    t.is(refusal(text).code, 'ERR_CONFIG_INVALID', text);
  }
});

test('parseListenAddress - reads addresses and bare ports', (t) => {
  t.deepEqual(parseListenAddress('443'), { host: '0.0.0.0', port: 443 });
  t.deepEqual(parseListenAddress('127.0.0.1:0'), { host: '127.0.0.1', port: 0 });
  t.deepEqual(parseListenAddress('[::1]:8443'), { host: '::1', port: 8443 });
  t.is(parseListenAddress('::1:8443'), undefined);
  t.is(parseListenAddress(':443'), undefined);
});
