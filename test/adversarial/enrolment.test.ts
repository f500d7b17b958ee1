import { createPublicKey, generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import forge from 'node-forge';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  bundlePath,
  encodeEnrolmentCode,
  enrolmentProofSchema,
  enrolPath,
  parseEnrolmentCode,
  rawPublicKey,
  renewalProofSchema,
  renewPath,
  signingKey,
  signStatement,
  ZtnaError,
  type ErrorCode,
} from '../../protocol/index.ts';
import {
  createCertificateRequest,
  createNoiseKey,
  createSigningKey,
  createTlsKey,
  digestText,
  fetchBundle,
} from '../../protocol/host/index.ts';
import { requestEnrolment } from '../../protocol/host/enrolment-request.ts';
import { callAdmin } from '../../relay/cli/admin-client.ts';
import { auditHead, auditRows, auditUntil } from '../support/audit-rows.ts';
import { identityOf } from '../support/cheating-client.ts';
import { Deployment, passwordOf, type Machine } from '../support/deployment.ts';

interface Context {
  deployment: Deployment;
  alice: Machine;
}
const test = anyTest as TestFn<Context>;

test.before('a deployment with one enrolled machine', async (t) => {
  t.timeout(90_000);
  t.context.deployment = await Deployment.start({
    apps: [{ name: 'app', target: 'tcp://127.0.0.1:9' }],
  });
  t.context.alice = await t.context.deployment.enrol();
});
test.after.always('stop', (t) => t.context.deployment.stop());

/** What a machine would send: every member can be replaced by a lie. */
interface Wishes {
  readonly certificateRequest?: string;
  readonly signer?: KeyObject;
  readonly signingKey?: Uint8Array;
  readonly noiseKey?: Uint8Array;
  readonly proof?: Readonly<Record<string, string>>;
  readonly password?: string | null;
}

let sharedRequest: Promise<string> | undefined;

/** A request for a key of its own; one for all where the key does not matter, since making them is slow. */
const certificateRequest = (): Promise<string> =>
  (sharedRequest ??= createTlsKey().then(createCertificateRequest));

async function enrolmentBody(secret: Buffer, wishes: Wishes = {}): Promise<string> {
  const request = wishes.certificateRequest ?? (await certificateRequest());
  const signer = wishes.signer ?? (await createSigningKey());
  const noiseKey = wishes.noiseKey ?? rawPublicKey(createPublicKey(await createNoiseKey()));
  const proof = {
    secretDigest: digestText(secret),
    requestDigest: digestText(request),
    noiseKey: Buffer.from(noiseKey).toString('base64url'),
    ...wishes.proof,
  };
  return JSON.stringify({
    secret: secret.toString('base64url'),
    certificateRequest: request,
    signingKey: Buffer.from(wishes.signingKey ?? rawPublicKey(createPublicKey(signer))).toString(
      'base64url',
    ),
    noiseKey: proof.noiseKey,
    proof: signStatement('enrolment', enrolmentProofSchema, proof, signingKey(signer)),
    hostname: 'cheat',
    platform: 'test',
    password: wishes.password === undefined ? passwordOf('mallory') : wishes.password,
  });
}

/** Posts it; answers the code of the refusal, or `enrolled`. */
async function post(
  deployment: Deployment,
  body: string,
  path: string = enrolPath,
): Promise<ErrorCode | 'enrolled'> {
  try {
    await requestEnrolment({ url: deployment.url, trust: null }, path, body);
    return 'enrolled';
  } catch (error) {
    if (error instanceof ZtnaError) return error.code;
    throw error;
  }
}

async function invite(deployment: Deployment, user: string, ...more: string[]): Promise<Buffer> {
  const code = await deployment.admin('invite', 'user', user, ...more);
  return parseEnrolmentCode(code).secret;
}

let unused: Promise<Buffer> | undefined;

/** A good code that refusals leave unused, so that it serves many of them. */
const unusedSecret = (deployment: Deployment): Promise<Buffer> =>
  (unused ??= invite(deployment, 'weak'));

async function inviteIds(deployment: Deployment): Promise<string[]> {
  const invites = (await callAdmin(deployment.relayDir, 'invite.list', {})) as { id: string }[];
  return invites.map(({ id }) => id);
}

async function deviceCount(deployment: Deployment): Promise<number> {
  return ((await callAdmin(deployment.relayDir, 'device.list', {})) as unknown[]).length;
}

/** Refused with `code`, recorded once, and no device more than before. */
async function assertRefused(
  t: ExecutionContext<Context>,
  body: string,
  code: ErrorCode,
  path?: string,
): Promise<void> {
  const { deployment } = t.context;
  const [devices, after] = [await deviceCount(deployment), await auditHead(deployment)];
  t.is(await post(deployment, body, path), code);
  const rows = await auditUntil(deployment, after, 1);
  t.deepEqual(
    rows.map(({ details }) => details['code']),
    [code],
  );
  t.is(await deviceCount(deployment), devices);
}

for (const [kind, count] of [
  ['connector', 50],
  ['user', 20], // few enough for this address to go on after
] as const) {
  test.serial(
    `code - of ${count} machines that use one ${kind}’s at once exactly one is enrolled`,
    async (t) => {
      t.timeout(60_000);
      const { deployment } = t.context;
      const secret =
        kind === 'user'
          ? await invite(deployment, 'mallory')
          : parseEnrolmentCode(
              await deployment.admin('invite', 'connector', 'fresh', '--app', 'fresh'),
            ).secret;
      const wishes = kind === 'user' ? {} : { password: null };
      const bodies = await Promise.all(
        Array.from({ length: count }, () => enrolmentBody(secret, wishes)),
      );
      const after = await auditHead(deployment);
      const results = await Promise.all(bodies.map((body) => post(deployment, body)));
      t.is(results.filter((result) => result === 'enrolled').length, 1);
      t.is(results.filter((result) => result === 'ERR_IDENTITY_CODE_USED').length, count - 1);
      await auditUntil(deployment, after, count - 1);
      const rows = await auditRows(deployment, after);
      const recorded = rows.map(({ action, outcome }) => `${action} ${outcome}`).sort();
      t.deepEqual(recorded, [
        ...(kind === 'connector' ? ['connector.enrol ok'] : ['device.enrol ok']),
        ...Array.from({ length: count - 1 }, () => 'identity.enrol refused'),
      ]);
    },
  );
}

test.serial('code - used: ERR_IDENTITY_CODE_USED', async (t) => {
  const secret = await invite(t.context.deployment, 'user1');
  const wishes = { password: passwordOf('user1') };
  t.is(await post(t.context.deployment, await enrolmentBody(secret, wishes)), 'enrolled');
  await assertRefused(t, await enrolmentBody(secret, wishes), 'ERR_IDENTITY_CODE_USED');
});

test.serial(
  'code - expired, revoked, guessed and another deployment’s look alike: ERR_IDENTITY_CODE_REFUSED',
  async (t) => {
    const { deployment } = t.context;
    const expired = await invite(deployment, 'user2', '--ttl', '1s');
    const known = await inviteIds(deployment);
    const revoked = await invite(deployment, 'user3');
    for (const id of await inviteIds(deployment)) {
      if (!known.includes(id)) await deployment.admin('invite', 'revoke', id);
    }
    await assertRefused(t, await enrolmentBody(revoked), 'ERR_IDENTITY_CODE_REFUSED');
    await assertRefused(t, await enrolmentBody(randomBytes(16)), 'ERR_IDENTITY_CODE_REFUSED');
    await new Promise((resolve) => setTimeout(resolve, 1_100)); // the life of the code itself
    await assertRefused(t, await enrolmentBody(expired), 'ERR_IDENTITY_CODE_REFUSED');
  },
);

test.serial(
  'code - of another deployment: the client finds a stranger and sends nothing',
  async (t) => {
    const { deployment } = t.context;
    const after = await auditHead(deployment);
    const code = encodeEnrolmentCode({
      rootId: randomBytes(32).toString('hex'),
      secret: randomBytes(16),
      url: deployment.url,
    });
    const { rootId } = parseEnrolmentCode(code);
    const error = await t.throwsAsync<ZtnaError>(fetchBundle(deployment.url, rootId));
    t.is(error.code, 'ERR_STATEMENT_REFUSED');
    const machine = deployment.machine();
    const finished = await machine.ztna('enroll', code, '--password-stdin');
    t.is(finished.code, 1);
    t.regex(finished.stderr, /\[ERR_STATEMENT_REFUSED\]/);
    t.deepEqual(await auditRows(deployment, after), []);
  },
);

test.serial(
  'code - a user’s at the connector and a connector’s at the client: refused',
  async (t) => {
    const { deployment } = t.context;
    const connectorCode = await deployment.admin(
      'invite',
      'connector',
      'elsewhere',
      '--app',
      'other',
    );
    const finished = await deployment.machine().ztna('enroll', connectorCode.trim(), '--json');
    t.not(finished.code, 0);
    t.is(finished.stdout, '');
  },
);

const flat = (hex: string) => Buffer.from(hex, 'hex');

/** Points of small order and encodings that are not canonical. */
const weakSigningKeys: Readonly<Record<string, Buffer>> = {
  'the neutral element': flat('01' + '00'.repeat(31)),
  'order 2': flat('ec' + 'ff'.repeat(30) + '7f'),
  'order 4': Buffer.alloc(32),
  'order 4, with sign': flat('00'.repeat(31) + '80'),
  'order 8': flat('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'),
  'order 8, the other': flat('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'),
  'not canonical': flat('ee' + 'ff'.repeat(30) + '7f'),
  'not canonical, order 1': flat('ee' + 'ff'.repeat(30) + 'ff'),
};

for (const [what, key] of Object.entries(weakSigningKeys)) {
  test.serial(`keys - an Ed25519 key of ${what}: ERR_IDENTITY_KEY_REFUSED`, async (t) => {
    const body = await enrolmentBody(await unusedSecret(t.context.deployment), {
      signingKey: key,
    });
    await assertRefused(t, body, 'ERR_IDENTITY_KEY_REFUSED');
  });
}

/** All of X25519's points with which an exchange ends in zeros. */
const weakNoiseKeys: Readonly<Record<string, Buffer>> = {
  zero: Buffer.alloc(32),
  one: flat('01' + '00'.repeat(31)),
  'order 8': flat('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
  'order 8, the other': flat('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'),
  'p - 1': flat('ec' + 'ff'.repeat(30) + '7f'),
  p: flat('ed' + 'ff'.repeat(30) + '7f'),
  'p + 1': flat('ee' + 'ff'.repeat(30) + '7f'),
  'zero, not canonical': flat('00'.repeat(31) + '80'),
};

for (const [what, key] of Object.entries(weakNoiseKeys)) {
  test.serial(`keys - an X25519 key of ${what}: ERR_IDENTITY_KEY_REFUSED`, async (t) => {
    const body = await enrolmentBody(await unusedSecret(t.context.deployment), { noiseKey: key });
    await assertRefused(t, body, 'ERR_IDENTITY_KEY_REFUSED');
  });
}

test.serial(
  'keys - one that is enrolled already, for whomever: ERR_IDENTITY_KEY_REFUSED',
  async (t) => {
    const { deployment, alice } = t.context;
    const identity = await identityOf(alice);
    const password = passwordOf('user4');
    for (const wishes of [{ noiseKey: identity.noisePublicKey }, { signer: identity.signingKey }]) {
      const secret = await invite(deployment, 'user4');
      await assertRefused(
        t,
        await enrolmentBody(secret, { ...wishes, password }),
        'ERR_IDENTITY_KEY_REFUSED',
      );
      // The code was not used up by that.
      if ('signer' in wishes)
        t.is(await post(deployment, await enrolmentBody(secret, { password })), 'enrolled');
    }
  },
);

/** Certificate requests that prove nothing. */
const requests: readonly [what: string, make: () => Promise<string> | string][] = [
  [
    'whose signature is not its key’s',
    () => {
      const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      return forgedRequest(publicKey, privateKey);
    },
  ],
  [
    'for a key of 1,024 bits',
    () => {
      const pair = generateKeyPairSync('rsa', { modulusLength: 1024 });
      return forgedRequest(pair.publicKey, pair.privateKey);
    },
  ],
  [
    'with a byte changed',
    async () => {
      const lines = (await certificateRequest()).split('\n');
      const body = Buffer.from(lines.slice(1, -2).join(''), 'base64');
      body[body.length - 40] = (body[body.length - 40] ?? 0) ^ 1;
      return [lines[0], body.toString('base64'), lines.at(-2), ''].join('\n');
    },
  ],
  ['that is none', () => 'not a request'],
];

function forgedRequest(publicKey: KeyObject, privateKey: KeyObject): string {
  const request = forge.pki.createCertificationRequest();
  const publicPem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const privatePem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  request.publicKey = forge.pki.publicKeyFromPem(publicPem);
  request.setSubject([{ name: 'commonName', value: 'ztna' }]);
  request.sign(forge.pki.privateKeyFromPem(privatePem), forge.md.sha256.create());
  return forge.pki.certificationRequestToPem(request);
}

for (const [what, make] of requests) {
  test.serial(`request - a certificate request ${what}: ERR_IDENTITY_KEY_REFUSED`, async (t) => {
    const secret = await unusedSecret(t.context.deployment);
    const body = await enrolmentBody(secret, { certificateRequest: await make() });
    await assertRefused(t, body, 'ERR_IDENTITY_KEY_REFUSED');
  });
}

test.serial(
  'proof - for another secret, request or key, or by another signer: ERR_STATEMENT_REFUSED',
  async (t) => {
    const secret = await unusedSecret(t.context.deployment);
    const lies: Wishes[] = [
      { proof: { secretDigest: digestText('x') } },
      { proof: { requestDigest: digestText('x') } },
      { signingKey: rawPublicKey(createPublicKey(await createSigningKey())) },
    ];
    for (const lie of lies) {
      await assertRefused(t, await enrolmentBody(secret, lie), 'ERR_STATEMENT_REFUSED');
    }
  },
);

test.serial('renewal - for another’s identity: refused, whoever signed it', async (t) => {
  const { id, signingKey: own } = await identityOf(t.context.alice);
  const request = await certificateRequest();
  const body = (signer: KeyObject, digest: string) =>
    JSON.stringify({
      certificateRequest: request,
      proof: signStatement(
        'renewal',
        renewalProofSchema,
        { id: id as 'dev_', requestDigest: digest, madeAtMs: Date.now() } as never,
        signingKey(signer),
      ),
    });
  const stranger = await createSigningKey();
  await assertRefused(t, body(stranger, digestText(request)), 'ERR_STATEMENT_REFUSED', renewPath);
  await assertRefused(t, body(own, digestText('x')), 'ERR_STATEMENT_REFUSED', renewPath);
  t.is(await post(t.context.deployment, body(own, digestText(request)), renewPath), 'enrolled');
});

test.serial('requests - anything but the three that there are finds nothing', async (t) => {
  const { deployment } = t.context;
  for (const path of ['/', '/v1/channel', `${bundlePath}/../../etc/passwd`, '/v1/enrol?x']) {
    t.is(await post(deployment, '{}', path), 'ERR_RELAY_UNREACHABLE');
  }
  await assertRefused(t, '{', 'ERR_MESSAGE_MALFORMED');
  await assertRefused(t, '{"__proto__":{}}', 'ERR_MESSAGE_MALFORMED');
});
