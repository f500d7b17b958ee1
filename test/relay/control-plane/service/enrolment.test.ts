import { X509Certificate } from 'node:crypto';
import { request, type RequestOptions } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import anyTest, { type TestFn } from 'ava';
import {
  bundlePath,
  encodeMessage,
  enrolmentProofSchema,
  enrolmentProtocol,
  enrolPath,
  enrolRequest,
  parseEnrolmentCode,
  rawPublicKey,
  signingKey,
  signStatement,
  verifyBundle,
  type EnrolRequest,
} from '../../../../protocol/index.ts';
import {
  certificateIdentity,
  createCertificateRequest,
  createNoiseKey,
  createSigningKey,
  createTlsKey,
  digestText,
  enrol,
  renewCertificate,
} from '../../../../protocol/host/index.ts';
import { password, Rig } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig; certificateRequest: string }>;

test.before('a control plane', async (t) => {
  t.context.rig = await Rig.start();
  t.context.certificateRequest = await createCertificateRequest(await createTlsKey());
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

/** A request that fits together, with keys of its own. */
async function makeRequest(certificateRequest: string, code: string): Promise<EnrolRequest> {
  const { secret } = parseEnrolmentCode(code);
  const key = await createSigningKey();
  const noiseKey = rawPublicKey(await createNoiseKey()).toString('base64url');
  return {
    secret: secret.toString('base64url'),
    certificateRequest,
    signingKey: rawPublicKey(key).toString('base64url'),
    noiseKey,
    proof: signStatement(
      'enrolment',
      enrolmentProofSchema,
      {
        secretDigest: digestText(secret),
        requestDigest: digestText(certificateRequest),
        noiseKey,
      },
      signingKey(key),
    ),
    hostname: 'test',
    platform: 'linux',
    password,
  };
}

function post(
  url: string,
  path: string,
  body: string | undefined,
  alpn = enrolmentProtocol,
): Promise<{ status: number; text: string; headers: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const options: RequestOptions & Pick<ConnectionOptions, 'ALPNProtocols'> = {
      method: body === undefined ? 'GET' : 'POST',
      ALPNProtocols: [alpn],
      rejectUnauthorized: false,
      agent: false,
    };
    const call = request(url + path, options, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers });
      });
    });
    call.on('error', reject);
    call.end(body);
  });
}

test.serial('enrol - of 50 requests with one code at once exactly one wins', async (t) => {
  const { rig, certificateRequest } = t.context;
  const code = await rig.userCode('crowd', ['staff']);
  // The password is set, so that hashing 50 first ones is not what is tested.
  await rig.admin('user.set', { name: 'crowd', password });
  const bodies = await Promise.all(
    Array.from({ length: 50 }, async () =>
      encodeMessage(enrolRequest, {
        ...(await makeRequest(certificateRequest, code)),
        password: null,
      }),
    ),
  );
  const answers = await Promise.all(bodies.map((body) => post(rig.url, enrolPath, body)));
  t.is(answers.filter(({ status }) => status === 200).length, 1);
  const refused = answers.filter(({ status }) => status !== 200);
  t.deepEqual(new Set(refused.map(({ status }) => status)), new Set([409]));
  for (const { text } of refused) t.regex(text, /"code":"ERR_IDENTITY_CODE_USED"/);
  const devices = await rig.admin<{ user: string }[]>('device.list');
  t.is(devices.filter((device) => device.user === 'crowd').length, 1);
  await rig.settled();
  const records = await rig.admin<{ action: string; outcome: string }[]>('audit.tail', {
    limit: 200,
  });
  t.is(
    records.filter((row) => row.action === 'identity.enrol' && row.outcome === 'refused').length,
    49,
  );
});

test.serial(
  'enrol - unknown, expired and revoked codes are refused alike and use up nothing',
  async (t) => {
    const { rig, certificateRequest } = t.context;
    const { code, invite } = await rig.admin<{ code: string; invite: string }>('invite.user', {
      name: 'late',
      groups: [],
      ttlMs: 60_000,
    });
    await rig.admin('invite.revoke', { id: invite });
    const revoked = await makeRequest(certificateRequest, code);
    const unknown = { ...revoked, ...(await makeRequest(certificateRequest, rewriteSecret(code))) };
    const answers = [];
    for (const made of [revoked, unknown]) {
      answers.push(await post(rig.url, enrolPath, encodeMessage(enrolRequest, made)));
    }
    t.deepEqual(answers[0]?.text, answers[1]?.text);
    t.is(answers[0]?.status, 401);
  },
);

function rewriteSecret(code: string): string {
  const body = Buffer.from(code.slice('ztna1_'.length), 'base64url');
  body.fill(7, 32, 48);
  return `ztna1_${body.toString('base64url')}`;
}

test.serial('enrol - a weak password or a wrong one leaves the code usable', async (t) => {
  const { rig } = t.context;
  const code = parseEnrolmentCode(await rig.userCode('picky', ['staff']));
  const attempt = (text: string | null) =>
    enrol({ code, hostname: 'h', platform: 'linux', password: text, expectRole: 'device' });
  await t.throwsAsync(attempt('short'), { code: 'ERR_IDENTITY_PASSWORD_WEAK' });
  await t.throwsAsync(attempt(null), { code: 'ERR_IDENTITY_PASSWORD_WEAK' });
  const { answer, identity } = await attempt(password);
  t.true(answer.role === 'device' && answer.signedIn);
  const certificate = new X509Certificate(identity.certificatePem);
  t.deepEqual(certificateIdentity(certificate), { role: 'device', id: identity.id });

  const second = parseEnrolmentCode(await rig.userCode('picky', []));
  const retry = (text: string) =>
    enrol({ code: second, hostname: 'h', platform: 'linux', password: text, expectRole: 'device' });
  await t.throwsAsync(retry('another-long-password'), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  t.true((await retry(password)).answer.role === 'device');
});

test.serial('enrol - a user has no more devices than allowed', async (t) => {
  const { rig } = t.context;
  await rig.admin('user.add', { name: 'collector', password });
  const join = async () =>
    enrol({
      code: parseEnrolmentCode(await rig.userCode('collector', [])),
      hostname: 'h',
      platform: 'linux',
      password: null,
      expectRole: 'device',
    });
  for (let i = 0; i < rig.settings.maxDevicesPerUser; i++) await join();
  await t.throwsAsync(join(), { code: 'ERR_LIMIT_DEVICES' });
});

test.serial(
  'renew - an enrolled identity gets another certificate, a revoked one none',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('renewer');
    const renewed = await renewCertificate(device.identity);
    t.is(renewed.id, device.identity.id);
    t.not(renewed.certificatePem, device.identity.certificatePem);
    const again = await rig.connectDevice(renewed);
    t.is(again.channel.welcome.device, device.identity.id as never);
    await rig.admin('revoke', { kind: 'device', id: renewed.id, reason: 'lost' });
    await t.throwsAsync(renewCertificate(renewed), { code: 'ERR_STATEMENT_REFUSED' });
  },
);

test.serial('GET /v1/bundle - answers the signed bundle and nothing else is served', async (t) => {
  const { rig } = t.context;
  const { status, text } = await post(rig.url, bundlePath, undefined);
  t.is(status, 200);
  const { rootId } = rig.plane.services.authority;
  t.notThrows(() => verifyBundle(text, { rootId, minVersion: 1 }, Date.now()));
  t.is((await post(rig.url, '/v1/channel', undefined)).status, 404);
  t.is((await post(rig.url, '/v1/command', '{}')).status, 404);
});

test.serial('POST /v1/enrol - refuses what is too large or no request', async (t) => {
  const { rig } = t.context;
  t.is((await post(rig.url, enrolPath, 'x'.repeat(20_000))).status, 413);
  t.is((await post(rig.url, enrolPath, '{}')).status, 400);
});

test.serial('browser - sees one page under a strict policy', async (t) => {
  const { rig } = t.context;
  const page = await post(rig.url, '/', undefined, 'http/1.1');
  t.is(page.status, 200);
  t.regex(String(page.headers['content-security-policy']), /default-src 'none'/);
  t.is((await post(rig.url, '/v1/bundle', undefined, 'http/1.1')).status, 404);
});

test.serial('control - without a certificate the connection ends before any answer', async (t) => {
  const error = await t.throwsAsync<NodeJS.ErrnoException>(
    post(t.context.rig.url, '/v1/channel', undefined, 'ztna-control/1'),
  );
  t.regex(String(error.code), /^(?:ECONNRESET|ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED)$/);
});
