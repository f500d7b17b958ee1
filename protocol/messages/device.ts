import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { extraCheckSchema, maxPostureChecks } from '../posture.ts';
import { bytes, natural, reason, text } from '../schema.ts';
import {
  bundle,
  errorCode,
  leases,
  log,
  refusal,
  relays,
  statementText,
  timeAnswer,
  timeRequest,
  versions,
} from './channel.ts';
import {
  deviceRevoke,
  devicesAnswer,
  devicesRequest,
  factorsAnswer,
  factorsRequest,
  passkeyRemove,
  providersAnswer,
  providersRequest,
  recoveryBegin,
  recoveryCodes,
  serviceChallenge,
  serviceNonce,
  serviceSignIn,
  signInBegin,
  signInFinish,
  signInStarted,
  signedOut,
} from './device-identity.ts';

const hello = v.strictObject({
  type: v.literal('hello'),
  versions,
  software: text(64),
  bundleVersion: natural,
  tunnels: v.pipe(v.array(idSchema('tunnel')), v.maxLength(256)), // still open here
});

/** Password sign-in. The session is bound to the device that asks; nothing like a token is handed out. */
const signIn = v.strictObject({
  type: v.literal('sign_in'),
  id: natural,
  user: text(64),
  password: v.pipe(v.string(), v.maxLength(1024)),
  otp: v.nullable(text(16)),
});

const signOut = v.strictObject({ type: v.literal('sign_out'), id: natural });
const status = v.strictObject({ type: v.literal('status'), id: natural });
const apps = v.strictObject({ type: v.literal('apps'), id: natural });

/** Asks for a new tunnel to the app of that name. */
const grantRequest = v.strictObject({ type: v.literal('grant'), id: natural, app: text(64) });

/** As many relays as one request may ask to leave out. */
export const maxAvoidedRelays = 16;

/**
 * Since version 2: asks for a path. `tunnel` names the tunnel that it resumes, null asks for a new one. Relays in
 * `avoid` failed or drain; they are named only if there is no other.
 */
const pathRequest = v.strictObject({
  type: v.literal('path'),
  id: natural,
  app: text(64),
  tunnel: v.nullable(idSchema('tunnel')),
  avoid: v.pipe(v.array(idSchema('relay')), v.maxLength(maxAvoidedRelays)),
});

const why = v.strictObject({ type: v.literal('why'), id: natural, app: text(64) });

/** One-time passwords: begin answers with a secret, confirm proves that it was stored. */
const otpBegin = v.strictObject({ type: v.literal('otp_begin'), id: natural });
const otpConfirm = v.strictObject({ type: v.literal('otp_confirm'), id: natural, otp: text(16) });
const otpList = v.strictObject({ type: v.literal('otp_list'), id: natural });
const otpRemove = v.strictObject({ type: v.literal('otp_remove'), id: natural, otp: text(16) });

/** This end of the tunnel is closed for good. */
const tunnelClosed = v.strictObject({
  type: v.literal('tunnel_closed'),
  tunnel: idSchema('tunnel'),
  reason,
});

/** Since version 3: facts about the device; `statement` is of kind `posture`, over this channel's nonce. */
const posture = v.strictObject({ type: v.literal('posture'), statement: statementText });

/** Since version 3: asks what the policies of the user's apps need of this device. */
const postureNeeds = v.strictObject({ type: v.literal('posture_needs'), id: natural });

/** Agent → control plane. */
export const fromDevice = v.variant('type', [
  hello,
  timeRequest,
  signIn,
  signOut,
  status,
  apps,
  grantRequest,
  pathRequest,
  why,
  otpBegin,
  otpConfirm,
  otpList,
  otpRemove,
  tunnelClosed,
  posture,
  postureNeeds,
  providersRequest,
  signInBegin,
  signInFinish,
  serviceChallenge,
  serviceSignIn,
  devicesRequest,
  deviceRevoke,
  factorsRequest,
  recoveryBegin,
  passkeyRemove,
]);
export type FromDevice = v.InferOutput<typeof fromDevice>;

const sessionFacts = v.strictObject({
  session: idSchema('session'),
  user: text(64),
  methods: v.array(text(16)),
  signedInAtMs: natural,
  untilMs: natural,
  provider: v.optional(text(64)), // since version 4
});
export type SessionFacts = v.InferOutput<typeof sessionFacts>;

const welcome = v.strictObject({
  type: v.literal('welcome'),
  version: natural,
  device: idSchema('device'),
  bundle: v.nullable(statementText), // when newer than the one named in hello
  session: v.nullable(sessionFacts),
});

const done = v.strictObject({ type: v.literal('done'), id: natural });

const signedIn = v.strictObject({
  type: v.literal('signed_in'),
  id: natural,
  session: sessionFacts,
});

const statusAnswer = v.strictObject({
  type: v.literal('status'),
  id: natural,
  session: v.nullable(sessionFacts),
  device: v.strictObject({
    id: idSchema('device'),
    hostname: text(255),
    certificateUntilMs: natural,
    state: v.optional(v.picklist(['enrolled', 'pending', 'disabled'])), // since version 4
  }),
});

const appRow = v.strictObject({
  name: text(64),
  kind: text(16),
  state: v.picklist(['online', 'offline', 'needs_remedy']),
  fix: v.nullable(text(500)),
  portHint: v.nullable(natural),
});
export type AppRow = v.InferOutput<typeof appRow>;
const appsAnswer = v.strictObject({ type: v.literal('apps'), id: natural, apps: v.array(appRow) });

/** Permission for one tunnel and where to use it: any of `relays`, in order of preference. */
const permit = v.strictObject({
  type: v.literal('permit'),
  id: natural,
  grant: statementText,
  roster: statementText,
  relays: v.array(v.strictObject({ id: idSchema('relay'), url: text(256) })),
  portHint: v.nullable(natural),
});

/** Answers `path`: as `permit`, with how far the connector is from each relay where that is known. */
const pathPermit = v.strictObject({
  type: v.literal('path_permit'),
  id: natural,
  grant: statementText,
  roster: statementText,
  relays: v.array(
    v.strictObject({
      id: idSchema('relay'),
      url: text(256),
      connectorMs: v.nullable(natural), // round trip
    }),
  ),
  portHint: v.nullable(natural),
});

/** Policies and conditions that one answer to `why` tells of. */
export const maxExplainedRules = 8;
export const maxExplainedConditions = 40;

/**
 * The part of a decision that its own user may see. Since version 3: `rules` names the policies that decide or would decide,
 * conditions name theirs, and of those of one rule with the same `choice` one is enough. `rules` is left out before, and
 * where nothing may be told.
 */
const whyAnswer = v.strictObject({
  type: v.literal('why'),
  id: natural,
  app: text(64),
  allowed: v.boolean(),
  decision: idSchema('decision'),
  conditions: v.array(
    v.strictObject({
      what: text(128),
      actual: text(128),
      required: text(128),
      met: v.boolean(),
      rule: v.optional(text(64)),
      choice: v.optional(natural),
    }),
  ),
  fix: v.nullable(text(500)),
  rules: v.optional(
    v.pipe(
      v.array(
        v.strictObject({
          id: text(64),
          name: v.nullable(text(128)),
          effect: v.picklist(['permits', 'would_permit', 'forbids']),
        }),
      ),
      v.maxLength(maxExplainedRules),
    ),
  ),
});

const otpSecret = v.strictObject({ type: v.literal('otp_secret'), id: natural, uri: text(512) });
const otpState = v.strictObject({
  type: v.literal('otp_state'),
  id: natural,
  enabled: v.boolean(),
});

/** The control plane ended this tunnel; the enforcers close its path at the same time. */
const tunnelEnded = v.strictObject({
  type: v.literal('tunnel_ended'),
  tunnel: idSchema('tunnel'),
  code: errorCode,
  reason,
});

/**
 * Since version 2: the connector of this tunnel takes no new tunnels and ends before long. New connections belong in
 * another tunnel; those that the tunnel has go on.
 */
const tunnelDraining = v.strictObject({
  type: v.literal('tunnel_draining'),
  tunnel: idSchema('tunnel'),
});

/**
 * Since version 3: policy holds the tunnel back, both ends are kept until `untilMs` of control time, and with `fix` done it goes
 * on.
 */
const tunnelSuspended = v.strictObject({
  type: v.literal('tunnel_suspended'),
  tunnel: idSchema('tunnel'),
  reason,
  fix: text(500),
  untilMs: natural,
  decision: idSchema('decision'),
});

/** Since version 3: what held this tunnel back is mended; a path for it would be granted now. */
const tunnelReady = v.strictObject({ type: v.literal('tunnel_ready'), tunnel: idSchema('tunnel') });

/**
 * Since version 3: posture is to be sent on this channel, over this nonce, at once and then at least every `everyMs`; facts
 * older than `maxAgeMs` count as unknown. Sent again when `checks` change, with another nonce.
 */
const postureWanted = v.strictObject({
  type: v.literal('posture_wanted'),
  nonce: bytes(16),
  everyMs: natural,
  maxAgeMs: natural,
  checks: v.pipe(v.array(extraCheckSchema), v.maxLength(maxPostureChecks)),
});

/** What stands between the device and apps that its user could reach: `actual` and `required` as in `why`. */
const postureNeedsAnswer = v.strictObject({
  type: v.literal('posture_needs'),
  id: natural,
  heardAgoMs: v.nullable(natural), // since the newest statement; null: none counts
  needs: v.pipe(
    v.array(
      v.strictObject({
        app: text(64),
        what: text(128), // posture.disk_encryption
        actual: text(128),
        required: text(128),
        met: v.boolean(),
      }),
    ),
    v.maxLength(1_024),
  ),
});

/** The session ended for this reason; tunnels end by themselves. */
const sessionEnded = v.strictObject({ type: v.literal('session_ended'), reason });

/** Control plane → agent. */
export const toDevice = v.variant('type', [
  welcome,
  timeAnswer,
  refusal,
  leases,
  log,
  bundle,
  done,
  signedIn,
  statusAnswer,
  appsAnswer,
  permit,
  pathPermit,
  whyAnswer,
  otpSecret,
  otpState,
  tunnelEnded,
  tunnelDraining,
  sessionEnded,
  relays,
  tunnelSuspended,
  tunnelReady,
  postureWanted,
  postureNeedsAnswer,
  providersAnswer,
  signInStarted,
  signedOut,
  serviceNonce,
  devicesAnswer,
  factorsAnswer,
  recoveryCodes,
]);
export type ToDevice = v.InferOutput<typeof toDevice>;
