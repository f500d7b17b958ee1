import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { bytes, natural, text } from '../schema.ts';
import { statementText } from './channel.ts';

/** What proves that whoever finishes a sign-in began it: SHA-256 of a verifier, and the verifier, in base64url. */
const challenge = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{43}$/));
const signInId = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{22}$/));

/** Since version 4, as all of this file: which providers there are. */
export const providersRequest = v.strictObject({ type: v.literal('providers'), id: natural });

/**
 * Begins a sign-in in a browser, or at a provider's page for machines without one. `loopbackPort` is where the command listens for
 * the browser on its own machine; `isStepUp` asks for a fresh one with all that the user has.
 */
export const signInBegin = v.strictObject({
  type: v.literal('sign_in_begin'),
  id: natural,
  method: v.picklist(['browser', 'device_code']),
  provider: v.nullable(text(64)), // null: the person chooses on the page
  challenge,
  loopbackPort: v.nullable(v.pipe(natural, v.maxValue(65_535))),
  isStepUp: v.boolean(),
});

/**
 * Finishes it: with what the browser brought, or null where the provider is asked. Refused with
 * ERR_IDENTITY_SIGN_IN_PENDING until the person is done.
 */
export const signInFinish = v.strictObject({
  type: v.literal('sign_in_finish'),
  id: natural,
  signIn: signInId,
  ticket: v.nullable(challenge),
  verifier: challenge,
});

/** Asks for a nonce that a service signs. */
export const serviceChallenge = v.strictObject({
  type: v.literal('service_challenge'),
  id: natural,
});

/** Signed by the service's own Ed25519 key (kind `service`): it signs in there, on a channel that it was given the nonce on. */
export const serviceProofSchema = v.strictObject({
  service: text(64),
  device: idSchema('device'),
  nonce: bytes(32),
});

/** Signs a service in: by a signature of its own key over the nonce, or by a token of an issuer that is trusted for it. */
export const serviceSignIn = v.strictObject({
  type: v.literal('service_sign_in'),
  id: natural,
  service: text(64),
  proof: v.variant('kind', [
    v.strictObject({ kind: v.literal('key'), statement: statementText }),
    v.strictObject({
      kind: v.literal('token'),
      token: v.pipe(v.string(), v.minLength(1), v.maxLength(16_384)),
    }),
  ]),
});

/** The user's own devices, and the end of one of them. */
export const devicesRequest = v.strictObject({ type: v.literal('devices'), id: natural });
export const deviceRevoke = v.strictObject({
  type: v.literal('device_revoke'),
  id: natural,
  device: idSchema('device'),
});

/** The user's own second factors; new recovery codes, in place of all before; the end of a passkey. */
export const factorsRequest = v.strictObject({ type: v.literal('factors'), id: natural });
export const recoveryBegin = v.strictObject({
  type: v.literal('recovery_begin'),
  id: natural,
  otp: text(16),
});
export const passkeyRemove = v.strictObject({
  type: v.literal('passkey_remove'),
  id: natural,
  passkey: text(1_366),
});

/** `isLocal`: there are users with passwords of their own. */
export const providersAnswer = v.strictObject({
  type: v.literal('providers'),
  id: natural,
  isLocal: v.boolean(),
  providers: v.pipe(
    v.array(v.strictObject({ name: text(64), title: text(64), hasDeviceCode: v.boolean() })),
    v.maxLength(32),
  ),
});

/** `url` is for the person, with `userCode` where he or she has to type one there. */
export const signInStarted = v.strictObject({
  type: v.literal('sign_in_started'),
  id: natural,
  signIn: signInId,
  url: text(2_048),
  userCode: v.nullable(text(64)),
  pollMs: natural, // at least so long between two attempts to finish
  expiresAtMs: natural,
});

/** Answers `sign_out`: where the person ends the provider's own session, where there is such a page. */
export const signedOut = v.strictObject({
  type: v.literal('signed_out'),
  id: natural,
  logoutUrl: v.nullable(text(4_096)),
});

export const serviceNonce = v.strictObject({
  type: v.literal('service_nonce'),
  id: natural,
  nonce: bytes(32),
});

export const devicesAnswer = v.strictObject({
  type: v.literal('devices'),
  id: natural,
  devices: v.pipe(
    v.array(
      v.strictObject({
        device: idSchema('device'),
        hostname: text(255),
        platform: text(128),
        state: text(16),
        isThis: v.boolean(),
        isOnline: v.boolean(),
        enrolledAtMs: natural,
        lastSeenAtMs: v.nullable(natural),
      }),
    ),
    v.maxLength(64),
  ),
});

export const factorsAnswer = v.strictObject({
  type: v.literal('factors'),
  id: natural,
  otp: v.boolean(),
  recoveryCodesLeft: natural,
  passkeys: v.pipe(
    v.array(
      v.strictObject({
        passkey: text(1_366),
        name: text(64),
        addedAtMs: natural,
        lastUsedAtMs: v.nullable(natural),
      }),
    ),
    v.maxLength(32),
  ),
  accountUrl: text(512), // where passkeys are added
});

export const recoveryCodes = v.strictObject({
  type: v.literal('recovery_codes'),
  id: natural,
  codes: v.pipe(v.array(text(32)), v.maxLength(16)),
});
