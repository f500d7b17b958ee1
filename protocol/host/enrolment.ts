import { createPrivateKey, X509Certificate } from 'node:crypto';
import { hostname, release } from 'node:os';
import { verifyBundle, type Bundle } from '../bundle.ts';
import { ZtnaError } from '../errors.ts';
import { isId } from '../id.ts';
import { decodeMessage, encodeMessage } from '../message.ts';
import {
  bundlePath,
  enrolAnswer,
  enrolmentProofSchema,
  enrolPath,
  enrolRequest,
  maxEnrolmentBytes,
  renewalProofSchema,
  renewAnswer,
  renewPath,
  renewRequest,
  type EnrolAnswer,
  type EnrolmentCode,
} from '../messages/enrolment.ts';
import { enrolmentProtocol } from '../messages/data.ts';
import { rawPublicKey, signingKey as toSigningKey, signStatement } from '../statement.ts';
import { requestEnrolment } from './enrolment-request.ts';
import type { Identity } from './identity.ts';
import { strangersCertificate } from './network-error.ts';
import {
  createCertificateRequest,
  createNoiseKey,
  createSigningKey,
  createTlsKey,
  digestText,
} from './keys.ts';
import { certificateIdentity, isIssuedByListed } from './peer.ts';
import { lookAtCertificate } from './tls-diagnosis.ts';

/**
 * Fetches the bundle of the deployment whose root has that fingerprint. Throws ERR_NETWORK_INTERCEPTED when what
 * answers is no relay, ERR_STATEMENT_REFUSED when it is one of another deployment, and as `dialTls`.
 */
export async function fetchBundle(url: string, rootId: string): Promise<Bundle> {
  // Nothing is trusted yet, TLS included: whoever answers, the statement is signed by the root that the code
  // names or it is refused. Every later request trusts only the CAs that it lists.
  const statement = await requestEnrolment({ url, trust: null }, bundlePath);
  try {
    return verifyBundle(statement.trim(), { rootId, minVersion: 0 }, Date.now());
  } catch (cause) {
    // By the protocol that brought the answer: what a relay shows to others says nothing of it.
    const looked = await lookAtCertificate({ url }, [], enrolmentProtocol);
    if (looked && !looked.seen.isOfRelay) throw strangersCertificate(url, looked.seen, [], cause);
    throw new ZtnaError('ERR_STATEMENT_REFUSED', {
      message: 'what answers at that address is not the relay that this was made for',
      hint: 'if the relay was set up anew, ask for a new code; if not, somebody poses as it',
      hop: 'network',
      reason: 'bundle_refused',
      cause,
    });
  }
}

function controlPlane(bundle: Bundle) {
  return { authorities: bundle.authorities, role: 'control-plane' } as const;
}

/** What a relay is told of the machine that enrols, as short as its tables want it. */
export function machineFacts(): { readonly hostname: string; readonly platform: string } {
  return {
    hostname: hostname().slice(0, 255),
    platform: `${process.platform} ${release()}`.slice(0, 64),
  };
}

/**
 * Makes this machine's keys, proves them and gets its certificate. Nothing is kept: `saveIdentity` is the caller's.
 * Throws what the relay refused it with, ERR_IDENTITY_CODE_REFUSED for a code of the other kind, ERR_STATEMENT_REFUSED
 * for an answer that does not hold together, and as `dialTls`.
 */
export async function enrol(options: {
  readonly code: EnrolmentCode;
  readonly hostname: string;
  readonly platform: string;
  readonly password: string | null;
  readonly expectRole: 'device' | 'connector' | 'data-plane';
  /** What a relay is to be: a code for the other is refused before it is used up. */
  readonly relay?: 'data-plane' | 'control-plane';
  /** With a code that came from a sign-in in a browser: what that sign-in was begun with, so that the code is no one else's. */
  readonly verifier?: string;
}): Promise<{ identity: Identity; answer: EnrolAnswer }> {
  const { code, expectRole } = options;
  const bundle = await fetchBundle(code.url, code.rootId);
  const [tlsKeyPem, signingKey, noiseKey] = await Promise.all([
    createTlsKey(),
    createSigningKey(),
    createNoiseKey(),
  ]);
  const certificateRequest = await createCertificateRequest(tlsKeyPem);
  const noisePublicKey = rawPublicKey(noiseKey);
  const proof = signStatement(
    'enrolment',
    enrolmentProofSchema,
    {
      secretDigest: digestText(code.secret),
      requestDigest: digestText(certificateRequest),
      noiseKey: noisePublicKey.toString('base64url'),
    },
    toSigningKey(signingKey),
  );
  const body = encodeMessage(enrolRequest, {
    secret: code.secret.toString('base64url'),
    certificateRequest,
    signingKey: rawPublicKey(signingKey).toString('base64url'),
    noiseKey: noisePublicKey.toString('base64url'),
    proof,
    hostname: options.hostname,
    platform: options.platform,
    password: options.password,
    ...(options.relay && { relay: options.relay }),
    ...(options.verifier !== undefined && { verifier: options.verifier }),
  });
  const text = await requestEnrolment(
    { url: code.url, trust: controlPlane(bundle) },
    enrolPath,
    body,
  );
  const answer = decodeMessage(enrolAnswer, text, maxAnswerBytes);
  if (answer.role !== expectRole) {
    throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', {
      message: `this code is for a ${answer.role}, not for a ${expectRole}`,
      hint: `use it with ${enrolCommands[answer.role]}, after asking for a new one`,
      hop: 'client',
      reason: 'code_role',
    });
  }
  const newest = verifyBundle(
    answer.bundle,
    { rootId: code.rootId, minVersion: bundle.version },
    Date.now(),
  );
  checkCertificate(answer.certificate, tlsKeyPem, newest, answer);
  const identity: Identity = {
    id: answer.id,
    role: answer.role,
    relayUrl: code.url,
    rootId: code.rootId,
    tlsKeyPem,
    certificatePem: answer.certificate,
    signingKey,
    noiseKey,
    noisePublicKey,
    bundle: newest,
    profile: profileOf(answer, options.hostname),
  };
  return { identity, answer };
}

/** What takes a code of each kind. */
const enrolCommands = {
  device: 'ztna enroll',
  connector: 'ztna-connector enroll',
  'data-plane': 'ztna-relay run --data-plane --enroll',
} as const;

function profileOf(answer: EnrolAnswer, hostname: string): Readonly<Record<string, string>> {
  switch (answer.role) {
    case 'device':
      return { user: answer.user, hostname };
    case 'connector':
      return { name: answer.name, hostname };
    case 'data-plane':
      return { name: answer.name, url: answer.url, hostname };
  }
}

/** Room for a certificate with its issuers and a bundle beside it. */
const maxAnswerBytes = 4 * maxEnrolmentBytes;

/**
 * The same identity with a new TLS key and certificate, and the newest bundle. Works up to 30 days past the
 * certificate's end, since the Ed25519 key proves who asks. The caller saves it before it uses it. `urls` are further
 * relays to ask by, where the identity's own cannot be reached.
 * Throws what the relay refused it with, ERR_STATEMENT_REFUSED, and as `dialTls`.
 */
export async function renewCertificate(
  identity: Identity,
  urls: readonly string[] = [],
): Promise<Identity> {
  const { id } = identity;
  if (!isId('device', id) && !isId('connector', id) && !isId('relay', id)) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'this identity has no id to renew' });
  }
  const tlsKeyPem = await createTlsKey();
  const certificateRequest = await createCertificateRequest(tlsKeyPem);
  const proof = signStatement(
    'renewal',
    renewalProofSchema,
    { id, requestDigest: digestText(certificateRequest), madeAtMs: Date.now() },
    toSigningKey(identity.signingKey),
  );
  const body = encodeMessage(renewRequest, { certificateRequest, proof });
  return askAnywhere([...new Set([identity.relayUrl, ...urls])], async (url) => {
    const trust = controlPlane(identity.bundle);
    const text = await requestEnrolment({ url, trust }, renewPath, body);
    const answer = decodeMessage(renewAnswer, text, maxAnswerBytes);
    const bundle = verifyBundle(
      answer.bundle,
      { rootId: identity.rootId, minVersion: identity.bundle.version },
      Date.now(),
    );
    checkCertificate(answer.certificate, tlsKeyPem, bundle, identity);
    return { ...identity, tlsKeyPem, certificatePem: answer.certificate, bundle };
  });
}

/**
 * Asks one relay after the other until one answers what holds; that this identity was revoked is nobody's to mend.
 * Throws what the first one failed with.
 */
async function askAnywhere<T>(
  urls: readonly string[],
  ask: (url: string) => Promise<T>,
): Promise<T> {
  let failure: unknown;
  for (const url of urls) {
    try {
      return await ask(url);
    } catch (error) {
      failure ??= error;
      if (error instanceof ZtnaError && error.code === 'ERR_IDENTITY_REVOKED') throw error;
    }
  }
  throw failure;
}

/** The certificate is for our key and our role, and comes from a CA of the bundle. */
function checkCertificate(
  pem: string,
  tlsKeyPem: string,
  bundle: Bundle,
  expected: { readonly role: string; readonly id: string },
): void {
  let isOurs = false;
  try {
    const certificate = new X509Certificate(pem);
    const stated = certificateIdentity(certificate);
    isOurs =
      certificate.checkPrivateKey(createPrivateKey(tlsKeyPem)) &&
      stated.role === expected.role &&
      stated.id === expected.id &&
      isIssuedByListed({ certificatePem: pem, bundle });
  } catch (cause) {
    throw certificateRefused(cause);
  }
  if (!isOurs) throw certificateRefused();
}

function certificateRefused(cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_STATEMENT_REFUSED', {
    message: 'the relay answered with a certificate that does not fit this machine’s keys',
    hop: 'relay',
    reason: 'certificate_mismatch',
    cause,
  });
}
