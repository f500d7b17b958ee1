import * as v from 'valibot';
import { ZtnaError } from '../errors.ts';
import { idSchema } from '../id.ts';
import { bytes, natural, text } from '../schema.ts';
import { errorCode, statementText } from './channel.ts';

/** `POST /v1/enrol` and `POST /v1/renew`, ALPN `ztna-enrol/1`; `GET /v1/bundle` answers the bundle statement as text. */
export const bundlePath = '/v1/bundle';
export const enrolPath = '/v1/enrol';
export const renewPath = '/v1/renew';

/** No request or answer of enrolment is larger. */
export const maxEnrolmentBytes = 16_384;

const pem = v.pipe(v.string(), v.maxLength(8_192));

/** Signed by the new identity's Ed25519 key (kind `enrolment`): these keys and that request belong together. */
export const enrolmentProofSchema = v.strictObject({
  secretDigest: bytes(32), // SHA-256 of the code's secret
  requestDigest: bytes(32), // SHA-256 of the certificate request's PEM text
  noiseKey: bytes(32),
});

export const enrolRequest = v.strictObject({
  secret: bytes(16),
  certificateRequest: pem, // PKCS#10, RSA; its subject is ignored
  signingKey: bytes(32), // Ed25519
  noiseKey: bytes(32), // X25519
  proof: statementText,
  hostname: text(255),
  platform: text(64),
  password: v.nullable(v.pipe(v.string(), v.maxLength(1024))), // a user's first password, or the present one
  relay: v.exactOptional(v.picklist(['data-plane', 'control-plane'])), // what a relay enrols to be; others leave it out
  verifier: v.exactOptional(v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{43}$/))), // with a code of a browser's sign-in
});
export type EnrolRequest = v.InferOutput<typeof enrolRequest>;

/** What the new identity keeps. `certificate` may be followed by its issuers in the same text. */
export const enrolAnswer = v.variant('role', [
  v.strictObject({
    role: v.literal('device'),
    id: idSchema('device'),
    user: text(64),
    signedIn: v.boolean(),
    pending: v.exactOptional(v.literal(true)), // it opens nothing until an administrator approves it
    certificate: pem,
    bundle: statementText,
  }),
  v.strictObject({
    role: v.literal('connector'),
    id: idSchema('connector'),
    name: text(64),
    certificate: pem,
    bundle: statementText,
  }),
  v.strictObject({
    role: v.literal('data-plane'),
    id: idSchema('relay'),
    name: text(64),
    url: text(256), // by which agents and connectors reach it
    certificate: pem,
    bundle: statementText,
  }),
]);
export type EnrolAnswer = v.InferOutput<typeof enrolAnswer>;

/** Signed by the identity's Ed25519 key (kind `renewal`). Accepted up to 30 days past the certificate's end. */
export const renewalProofSchema = v.strictObject({
  id: v.union([idSchema('device'), idSchema('connector'), idSchema('relay')]),
  requestDigest: bytes(32),
  madeAtMs: natural, // the asker's own clock, for the log alone
});

export const renewRequest = v.strictObject({ certificateRequest: pem, proof: statementText });
export const renewAnswer = v.strictObject({ certificate: pem, bundle: statementText });

/** The answer, with a 4xx or 5xx status, when a request is refused. */
export const enrolRefusal = v.strictObject({ code: errorCode, message: v.nullable(text(500)) });

/** What a one-time code holds. */
export interface EnrolmentCode {
  readonly rootId: string; // lower-case hex
  readonly secret: Buffer; // 16 bytes
  readonly url: string;
}

const codePrefix = 'ztna1_';

/** `ztna1_` and base64url of root fingerprint (32 bytes) ‖ secret (16 bytes) ‖ URL (UTF-8). */
export function encodeEnrolmentCode(code: EnrolmentCode): string {
  const body = Buffer.concat([Buffer.from(code.rootId, 'hex'), code.secret, Buffer.from(code.url)]);
  return codePrefix + body.toString('base64url');
}

/** Reads a code as a person pasted it. Throws ERR_IDENTITY_CODE_REFUSED. */
export function parseEnrolmentCode(pasted: string): EnrolmentCode {
  const code = pasted.trim();
  const body = Buffer.from(code.slice(codePrefix.length), 'base64url');
  const url = body.subarray(48).toString('utf8');
  if (!code.startsWith(codePrefix) || code.length > 512 || !/^https:\/\/[^\s/?#@]+\/?$/.test(url)) {
    throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', {
      message: 'this is not an enrolment code',
      hint: 'paste the whole code that begins with ztna1_',
    });
  }
  return { rootId: body.subarray(0, 32).toString('hex'), secret: body.subarray(32, 48), url };
}
