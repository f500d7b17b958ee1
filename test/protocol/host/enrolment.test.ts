import { createServer } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { createHash, X509Certificate } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { newId } from '../../../protocol/id.ts';
import { decodeMessage } from '../../../protocol/message.ts';
import { controlProtocol, enrolmentProtocol } from '../../../protocol/messages/data.ts';
import {
  enrolmentProofSchema,
  enrolRequest,
  renewRequest,
  type EnrolmentCode,
  type EnrolRequest,
} from '../../../protocol/messages/enrolment.ts';
import { verifyingKey, verifyStatement, rawPublicKey } from '../../../protocol/statement.ts';
import { enrol, fetchBundle, renewCertificate } from '../../../protocol/host/enrolment.ts';
import { peerIdentity } from '../../../protocol/host/peer.ts';
import { dialTls, secureServerOptions } from '../../../protocol/host/tls.ts';
import { startTestServer } from '../../support/control-server.ts';
import { TestCa, TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const deviceId = newId('device');
const secret = Buffer.alloc(16, 7);

type Answer = { status?: number; body: string };
type Behaviour = (path: string, body: string) => Answer;

async function serve(
  t: ExecutionContext,
  behave: Behaviour,
  certificate = pki.ca.issue({ uris: ['ztna://control-plane/cp'], uses: ['serverAuth'] }),
): Promise<EnrolmentCode> {
  const server = createServer(
    secureServerOptions({ ...certificate, clientAuthorities: null, alpn: [enrolmentProtocol] }),
  );
  server.on('request', (request, response) => {
    void readBody(request).then((body) => {
      const answer = behave(request.url ?? '', body);
      response.writeHead(answer.status ?? 200).end(answer.body);
    });
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { rootId: pki.rootId, secret, url: `https://127.0.0.1:${port}` };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function issue(request: EnrolRequest, uri = `ztna://device/${deviceId}`, ca = pki.ca): string {
  return ca.issueFor(request.certificateRequest, { uris: [uri], hosts: [], uses: ['clientAuth'] });
}

/** A control plane that accepts the code, with parts of its answer replaced. */
function accepting(
  change: (request: EnrolRequest) => Record<string, unknown> = () => ({}),
): Behaviour {
  return (path, body) => {
    if (path === '/v1/bundle') return { body: pki.signBundle() };
    const request = decodeMessage(enrolRequest, body);
    const answer = {
      role: 'device',
      id: deviceId,
      user: 'ann',
      signedIn: true,
      certificate: issue(request),
      bundle: pki.signBundle({ version: 2 }),
    };
    return { body: JSON.stringify({ ...answer, ...change(request) }) };
  };
}

function enrolDevice(code: EnrolmentCode) {
  return enrol({
    code,
    hostname: 'laptop',
    platform: 'test',
    password: 'pw',
    expectRole: 'device',
  });
}

async function refused(t: ExecutionContext, work: Promise<unknown>): Promise<ZtnaError> {
  return t.throwsAsync<ZtnaError>(work, { instanceOf: ZtnaError });
}

test('enrol - proves its keys, and its certificate opens a control connection', async (t) => {
  let seen: EnrolRequest | undefined;
  const code = await serve(
    t,
    accepting((request) => {
      seen = request;
      return {};
    }),
  );
  const { identity, answer } = await enrolDevice(code);
  t.is(answer.role, 'device');
  t.is(identity.id, deviceId);
  t.is(identity.bundle.version, 2);
  t.deepEqual(identity.profile, { user: 'ann', hostname: 'laptop' });

  t.truthy(seen);
  if (!seen) return;
  t.is(seen.password, 'pw');
  const key = verifyingKey(Buffer.from(seen.signingKey, 'base64url'));
  const proof = verifyStatement('enrolment', enrolmentProofSchema, seen.proof, [key]);
  const digest = (data: string | Buffer) => createHash('sha256').update(data).digest('base64url');
  t.is(proof.secretDigest, digest(secret));
  t.is(proof.requestDigest, digest(seen.certificateRequest));
  t.is(proof.noiseKey, identity.noisePublicKey.toString('base64url'));
  t.deepEqual(rawPublicKey(identity.noiseKey), identity.noisePublicKey);

  const control = await startTestServer({ pki });
  t.teardown(() => control.stop());
  const peer = once(control.server, 'secureConnection') as Promise<[TLSSocket]>;
  const socket = await dialTls({
    url: control.url,
    alpn: controlProtocol,
    trust: { authorities: identity.bundle.authorities, role: 'control-plane' },
    identity,
  });
  t.teardown(() => socket.destroy());
  t.deepEqual(peerIdentity((await peer)[0]), { role: 'device', id: deviceId });
});

test('enrol - refuses a bundle of another root than the code’s', async (t) => {
  const other = new TestPki();
  const code = await serve(t, () => ({ body: other.signBundle() }));
  const error = await refused(t, enrolDevice(code));
  t.is(error.code, 'ERR_STATEMENT_REFUSED');
  t.is(error.hop, 'network');
});

test('enrol - sends the secret to nobody whose certificate is not of the bundle’s CA', async (t) => {
  const paths: string[] = [];
  const stranger = new TestCa('in the middle').issue({ uris: ['ztna://control-plane/cp'] });
  const code = await serve(
    t,
    (path) => {
      paths.push(path);
      return { body: pki.signBundle() };
    },
    stranger,
  );
  const error = await refused(t, enrolDevice(code));
  t.is(error.code, 'ERR_NETWORK_INTERCEPTED');
  t.deepEqual(paths, ['/v1/bundle']);
});

test('enrol - sends the secret to no data plane', async (t) => {
  const paths: string[] = [];
  const dataPlane = pki.ca.issue({ uris: [`ztna://data-plane/${newId('relay')}`] });
  const code = await serve(
    t,
    (path) => {
      paths.push(path);
      return { body: pki.signBundle() };
    },
    dataPlane,
  );
  t.is((await refused(t, enrolDevice(code))).code, 'ERR_IDENTITY_ROLE');
  t.deepEqual(paths, ['/v1/bundle']);
});

test('enrol - refuses a code of the other kind', async (t) => {
  const id = newId('connector');
  const code = await serve(t, (path, body) => {
    if (path === '/v1/bundle') return { body: pki.signBundle() };
    const certificate = issue(decodeMessage(enrolRequest, body), `ztna://connector/${id}`);
    const answer = { role: 'connector', id, name: 'berlin', certificate, bundle: pki.signBundle() };
    return { body: JSON.stringify(answer) };
  });
  t.is((await refused(t, enrolDevice(code))).code, 'ERR_IDENTITY_CODE_REFUSED');
});

for (const [what, change] of [
  [
    'of another id',
    (r: EnrolRequest) => ({ certificate: issue(r, `ztna://device/${newId('device')}`) }),
  ],
  ['of another role', (r: EnrolRequest) => ({ certificate: issue(r, 'ztna://control-plane/cp') })],
  ['of another CA', (r: EnrolRequest) => ({ certificate: issue(r, undefined, new TestCa()) })],
  [
    'for another key',
    () => ({ certificate: pki.dialIdentity(`ztna://device/${deviceId}`).certificatePem }),
  ],
  ['that is none', () => ({ certificate: 'no certificate' })],
] as const) {
  test(`enrol - refuses a certificate ${what}`, async (t) => {
    const code = await serve(t, accepting(change));
    const error = await refused(t, enrolDevice(code));
    t.is(error.code, 'ERR_STATEMENT_REFUSED');
    t.is(error.reason, 'certificate_mismatch');
  });
}

test('enrol - refuses a bundle older than the one it began with', async (t) => {
  const code = await serve(
    t,
    accepting(() => ({ bundle: pki.signBundle({ version: 0 }) })),
  );
  t.is((await refused(t, enrolDevice(code))).code, 'ERR_STATEMENT_REFUSED');
});

test('enrol - throws the relay’s refusal with its message', async (t) => {
  const code = await serve(t, (path) =>
    path === '/v1/bundle'
      ? { body: pki.signBundle() }
      : { status: 409, body: '{"code":"ERR_IDENTITY_CODE_USED","message":"used on Monday"}' },
  );
  const error = await refused(t, enrolDevice(code));
  t.is(error.code, 'ERR_IDENTITY_CODE_USED');
  t.is(error.message, 'used on Monday');
});

test('fetchBundle - gives up on an answer above the cap', async (t) => {
  const { url, rootId } = await serve(t, () => ({ body: 'x'.repeat(70_000) }));
  t.is((await refused(t, fetchBundle(url, rootId))).code, 'ERR_MESSAGE_TOO_LARGE');
});

test('renewCertificate - makes a new key and proves who asks by the old identity', async (t) => {
  let signer: string | undefined;
  const code = await serve(t, (path, body) => {
    if (path !== '/v1/renew') return accepting()(path, body);
    const request = decodeMessage(renewRequest, body);
    signer = request.proof.split('.')[1];
    const certificate = pki.ca.issueFor(request.certificateRequest, {
      uris: [`ztna://device/${deviceId}`],
    });
    return { body: JSON.stringify({ certificate, bundle: pki.signBundle({ version: 3 }) }) };
  });
  const { identity } = await enrolDevice(code);
  const renewed = await renewCertificate(identity);
  const key = verifyingKey(rawPublicKey(identity.signingKey));
  t.is(signer, key.keyId);
  t.not(renewed.tlsKeyPem, identity.tlsKeyPem);
  t.is(renewed.bundle.version, 3);
  t.is(renewed.id, identity.id);
  const serial = (pem: string) => new X509Certificate(pem).serialNumber;
  t.not(serial(renewed.certificatePem), serial(identity.certificatePem));
});

test('renewCertificate - goes past a relay whose answer its keys do not bear out', async (t) => {
  const stranger = new TestCa();
  const issued = (ca: TestCa) => (path: string, body: string) => {
    if (path !== '/v1/renew') return accepting()(path, body);
    const request = decodeMessage(renewRequest, body);
    const uris = [`ztna://device/${deviceId}`];
    const certificate = ca.issueFor(request.certificateRequest, { uris });
    return { body: JSON.stringify({ certificate, bundle: pki.signBundle({ version: 3 }) }) };
  };
  const code = await serve(t, issued(stranger));
  const other = await serve(t, issued(pki.ca));
  const { identity } = await enrolDevice(code);
  const renewed = await renewCertificate(identity, [other.url]);
  t.is(renewed.bundle.version, 3);
  await t.throwsAsync(renewCertificate(identity), { code: 'ERR_STATEMENT_REFUSED' });
});
