import { createServer as createTlsServer } from 'node:tls';
import type { AddressInfo } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  controlProtocol,
  dataProtocol,
  grantHeader,
  instanceHeader,
  newId,
  slotPath,
  tunnelPath,
  type ZtnaError,
} from '../../protocol/index.ts';
import { dialWebSocket, secureServerOptions } from '../../protocol/host/index.ts';
import { auditHead, auditUntil } from '../support/audit-rows.ts';
import { CheatingClient, identityOf } from '../support/cheating-client.ts';
import { Deployment, type Machine } from '../support/deployment.ts';
import { Insider, forgedCertificate } from '../support/insider.ts';
import { TestCa } from '../support/pki.ts';
import { dialRaw, upgradeRequest, type RawDial } from '../support/raw-tls.ts';
import { DataEnd, type Credentials } from '../support/relay-rig.ts';

interface Context {
  deployment: Deployment;
  insider: Insider;
  alice: Machine;
  device: Credentials;
  connector: Credentials;
}
const test = anyTest as TestFn<Context>;

const hourMs = 3_600_000;
const stranger = new TestCa('somebody else');

test.before('a deployment with one enrolled machine', async (t) => {
  t.timeout(90_000);
  const deployment = await Deployment.start({
    apps: [{ name: 'app', target: 'tcp://127.0.0.1:9' }],
  });
  t.context.deployment = deployment;
  t.context.insider = await Insider.of(deployment);
  t.context.alice = await deployment.enrol();
  const { id } = await identityOf(t.context.alice);
  t.context.device = await t.context.insider.credentials('device', id);
  t.context.connector = await t.context.insider.credentials('connector', newId('connector'));
});

test.after.always('stop', (t) => t.context.deployment.stop());

/** Certificates that nobody may come in with, by what is wrong with them and how OpenSSL names that. */
type Bad = Pick<RawDial, 'key' | 'cert'>;
const badCertificates: readonly [
  what: string,
  reason: string,
  make: (context: Context, id: string) => Promise<Bad> | Bad,
][] = [
  ['none', 'err_ssl_peer_did_not_return_a_certificate', () => ({})],
  [
    'one of another CA that claims the role',
    'self_signed_cert_in_chain|unable_to_get_issuer_cert_locally|unable_to_verify_leaf_signature',
    (_, id) => {
      const { keyPem, certificatePem } = stranger.issue({ uris: [`ztna://device/${id}`] });
      return { key: keyPem, cert: certificatePem };
    },
  ],
  [
    'a self-signed one',
    'depth_zero_self_signed_cert|unable_to_get_issuer_cert_locally|unable_to_verify_leaf_signature',
    ({ device }) => ({ key: device.tlsKeyPem, cert: selfSigned() }),
  ],
  [
    'a self-signed one with a real one as filler',
    'depth_zero_self_signed_cert|unable_to_get_issuer_cert_locally|unable_to_verify_leaf_signature',
    ({ device }) => ({ key: device.tlsKeyPem, cert: selfSigned() + device.certificatePem }),
  ],
  [
    'one that a device issued as if it were a CA',
    'invalid_ca|invalid_purpose|unspecified',
    ({ device }) => ({
      key: device.tlsKeyPem,
      cert: forgedCertificate({ role: 'connector', id: newId('connector') }, device.certificatePem),
    }),
  ],
  [
    'one that has expired',
    'cert_has_expired',
    async ({ insider }, id) => {
      const { tlsKeyPem, certificatePem } = await insider.credentials('device', id, {
        madeAtMs: Date.now() - 2 * hourMs,
      });
      return { key: tlsKeyPem, cert: certificatePem };
    },
  ],
  [
    'one that is not valid yet',
    'cert_not_yet_valid',
    async ({ insider }, id) => {
      const { tlsKeyPem, certificatePem } = await insider.credentials('device', id, {
        madeAtMs: Date.now() + 2 * hourMs,
      });
      return { key: tlsKeyPem, cert: certificatePem };
    },
  ],
];

function selfSigned(): string {
  return forgedCertificate({ role: 'device', id: newId('device') });
}

for (const [what, reason, make] of badCertificates) {
  test.serial(`data plane - ${what}: refused in TLS and recorded once`, async (t) => {
    const { deployment, alice } = t.context;
    const { id } = await identityOf(alice);
    const bad = await make(t.context, id);
    const after = await auditHead(deployment);
    const request = upgradeRequest(tunnelPath, [`${grantHeader}: x`]);
    const outcome = await dialRaw({ port: deployment.port, alpn: dataProtocol, request, ...bad });
    t.is(outcome.answer, '');
    const rows = await auditUntil(deployment, after, 1);
    t.deepEqual(
      rows.map(({ action, details }) => [action, details['code']]),
      [['admission.refused', 'ERR_IDENTITY_UNAUTHENTICATED']],
    );
    t.regex(String(rows[0]?.details['reason']), new RegExp(`^(${reason})$`));
  });

  test.serial(`control plane - ${what}: cut without an answer and recorded once`, async (t) => {
    const { deployment, alice } = t.context;
    const bad = await make(t.context, (await identityOf(alice)).id);
    const after = await auditHead(deployment);
    const request = upgradeRequest('/v1/channel');
    const { port } = deployment;
    const outcome = await dialRaw({ port, alpn: controlProtocol, request, ...bad });
    t.is(outcome.answer, '');
    const rows = await auditUntil(deployment, after, 1);
    t.deepEqual(
      rows.map(({ action, details }) => [action, details['code']]),
      [['channel.open', 'ERR_IDENTITY_UNAUTHENTICATED']],
    );
    t.regex(String(rows[0]?.details['reason']), new RegExp(`^(${reason})$`));
  });
}

async function dialData(
  deployment: Deployment,
  identity: Credentials,
  path: string,
  headers: Record<string, string> = {},
): Promise<DataEnd> {
  return new DataEnd(
    await dialWebSocket({
      url: deployment.url,
      alpn: dataProtocol,
      serverRole: 'data-plane',
      identity,
      path,
      headers,
    }),
  );
}

/** Real certificates of one role where another is asked for: the code is always the same. */
const wrongRoles: readonly [
  what: string,
  path: string,
  who: (context: Context) => Promise<Credentials> | Credentials,
][] = [
  ['a connector asks for a tunnel', tunnelPath, ({ connector }) => connector],
  ['a device offers a slot', slotPath, ({ device }) => device],
  [
    'a device offers a slot with a connector’s certificate as filler',
    slotPath,
    ({ device, connector }) => ({
      ...device,
      certificatePem: device.certificatePem + connector.certificatePem,
    }),
  ],
  [
    'a data plane asks for a tunnel',
    tunnelPath,
    ({ insider }) => insider.credentials('data-plane', newId('relay')),
  ],
  [
    'a control plane offers a slot',
    slotPath,
    ({ insider }) => insider.credentials('control-plane', 'cp'),
  ],
];

for (const [what, path, who] of wrongRoles) {
  test.serial(`data plane - ${what}: ERR_IDENTITY_ROLE`, async (t) => {
    const { deployment } = t.context;
    const after = await auditHead(deployment);
    const end = await dialData(deployment, await who(t.context), path, {
      [grantHeader]: 'x',
      [instanceHeader]: newId('instance'),
    });
    t.deepEqual(await end.closed, { code: 4401, text: 'ERR_IDENTITY_ROLE' });
    const rows = await auditUntil(deployment, after, 1);
    t.deepEqual(
      rows.map(({ details }) => details['code']),
      ['ERR_IDENTITY_ROLE'],
    );
  });
}

test.serial('data plane - identity is the leaf’s: a filler’s grant is refused', async (t) => {
  const { deployment, insider, alice } = t.context;
  const client = await CheatingClient.open(alice);
  const { grant } = await client.permit('app');
  const other = await insider.credentials('device', newId('device'));
  const withFiller = {
    ...other,
    certificatePem: other.certificatePem + client.identity.certificatePem,
  };
  const end = await dialData(deployment, withFiller, tunnelPath, { [grantHeader]: grant });
  t.deepEqual(await end.closed, { code: 4403, text: 'ERR_GRANT_MISMATCH' });
  await client.close();
});

async function refusedChannel(
  t: ExecutionContext<Context>,
  identity: Credentials,
  path: string,
): Promise<string | undefined> {
  const error = await t.throwsAsync<ZtnaError>(
    dialWebSocket({
      url: t.context.deployment.url,
      alpn: controlProtocol,
      serverRole: 'control-plane',
      identity,
      path,
    }),
  );
  return error.code;
}

test.serial(
  'control plane - another control plane, and any other path, get ERR_IDENTITY_ROLE',
  async (t) => {
    const { insider, device } = t.context;
    const controlPlane = await insider.credentials('control-plane', 'cp');
    t.is(await refusedChannel(t, controlPlane, '/v1/channel'), 'ERR_IDENTITY_ROLE');
    t.is(await refusedChannel(t, device, tunnelPath), 'ERR_IDENTITY_ROLE');
  },
);

test.serial(
  'control plane - a certificate of ours for nobody enrolled gets ERR_IDENTITY_REVOKED',
  async (t) => {
    const { deployment, insider, connector } = t.context;
    const after = await auditHead(deployment);
    const relay = await insider.credentials('data-plane', newId('relay'));
    t.is(await refusedChannel(t, connector, '/v1/channel'), 'ERR_IDENTITY_REVOKED');
    t.is(await refusedChannel(t, relay, '/v1/channel'), 'ERR_IDENTITY_REVOKED');
    t.is((await auditUntil(deployment, after, 2)).length, 2);
  },
);

test.serial('control plane - a device that greets as a data plane is cut off', async (t) => {
  const { deployment, device } = t.context;
  const ws = await dialWebSocket({
    url: deployment.url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: device,
    path: '/v1/channel',
  });
  const end = new DataEnd(ws);
  end.send(
    JSON.stringify({
      type: 'slots',
      connector: newId('connector'),
      instance: newId('instance'),
      idle: 1,
    }),
  );
  t.deepEqual(await end.closed, { code: 4400, text: 'ERR_MESSAGE_MALFORMED' });
  t.deepEqual(end.texts, []);
});

test.serial(
  'TLS - no session can be taken up again, at either process, with or without a key',
  async (t) => {
    const { deployment, device } = t.context;
    const mine = { key: device.tlsKeyPem, cert: device.certificatePem };
    const data = { alpn: dataProtocol, request: upgradeRequest(tunnelPath) };
    const control = { alpn: controlProtocol, request: upgradeRequest('/v1/channel') };
    for (const [first, second] of [
      [data, data],
      [data, control],
      [control, control],
      [control, data],
    ] as const) {
      const opened = await dialRaw({ port: deployment.port, ...first, ...mine });
      t.regex(opened.answer, /^HTTP\/1\.1 101 /);
      const { session } = opened;
      t.truthy(session);
      const again = await dialRaw({ port: deployment.port, ...second, ...mine, session });
      t.regex(again.answer, /^HTTP\/1\.1 101 /);
      t.false(again.isSessionReused);
      const keyless = await dialRaw({ port: deployment.port, ...second, session });
      t.false(keyless.isSessionReused);
      t.is(keyless.answer, '');
    }
  },
);

test.serial('TLS - 1.2 is refused by both planes', async (t) => {
  const { deployment, device } = t.context;
  for (const alpn of [dataProtocol, controlProtocol]) {
    const outcome = await dialRaw({
      port: deployment.port,
      alpn,
      request: upgradeRequest('/v1/channel'),
      key: device.tlsKeyPem,
      cert: device.certificatePem,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.2',
    });
    t.is(outcome.answer, '');
    t.is(outcome.error, 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  }
});

/** Who answers in the relay's place, and what the employee is told. */
const impostors: readonly [
  what: string,
  code: string,
  exitCode: number,
  who: (context: Context) => Promise<Pick<Credentials, 'tlsKeyPem' | 'certificatePem'>>,
][] = [
  [
    'somebody with another CA',
    'ERR_NETWORK_INTERCEPTED',
    3,
    () => {
      const { keyPem, certificatePem } = stranger.issue({ uris: ['ztna://control-plane/cp'] });
      return Promise.resolve({ tlsKeyPem: keyPem, certificatePem });
    },
  ],
  ['an enrolled device', 'ERR_RELAY_UNREACHABLE', 3, ({ device }) => Promise.resolve(device)],
  [
    'a data plane',
    'ERR_IDENTITY_ROLE',
    1,
    ({ insider }) => insider.credentials('data-plane', newId('relay')),
  ],
];

for (const [what, code, exitCode, who] of impostors) {
  test.serial(`client - ${what} in the relay’s place: ${code}, and nothing is said`, async (t) => {
    const { deployment, alice, device } = t.context;
    const { tlsKeyPem, certificatePem } = await who(t.context);
    let heard = '';
    const server = createTlsServer(
      secureServerOptions({
        keyPem: tlsKeyPem,
        certificatePem,
        clientAuthorities: device.bundle.authorities,
        alpn: [controlProtocol],
      }),
      (socket) => {
        socket.on('error', () => undefined);
        socket.on('data', (chunk: Buffer) => (heard += chunk.toString('latin1')));
      },
    );
    server.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const fooled = deployment.machine({
      ZTNA_HOME: alice.home,
      ZTNA_RELAY_ADDRESS: `127.0.0.1:${port}`,
    });
    const finished = await fooled.ztna('apps', '--json');
    t.is(finished.code, exitCode, finished.stderr);
    const { error } = JSON.parse(finished.stderr) as { error: { code: string } };
    t.is(error.code, code);
    t.is(finished.stdout, '');
    t.is(heard, '');
    await new Promise((resolve) => server.close(resolve));
  });
}
