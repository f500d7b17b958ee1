import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { bytes, natural } from '../schema.ts';
import { statementText } from './channel.ts';

/** `POST /v1/join`, ALPN `ztna-enrol/1`: an enrolled relay offers the keys of a control plane of its own. */
export const joinPath = '/v1/join';

/** As many as a bundle has room for. */
export const maxControlPlanes = 4;

const keys = {
  grantKey: bytes(32), // Ed25519, as the others
  rosterKey: bytes(32),
  auditKey: bytes(32),
  authority: v.pipe(v.string(), v.maxLength(8_192)), // CA certificate, PEM
};

/** The public keys of one control plane. */
export const controlPlaneSchema = v.strictObject({
  id: v.union([v.literal('cp'), idSchema('relay')]), // `cp`: the first
  ...keys,
});
export type ControlPlaneKeys = v.InferOutput<typeof controlPlaneSchema>;

/** Every control plane and its keys, signed by the root (kind `control-planes`); what bundles are made of. */
export const controlPlanesSchema = v.strictObject({
  version: natural,
  members: v.pipe(v.array(controlPlaneSchema), v.minLength(1), v.maxLength(maxControlPlanes)),
  /** Those that were removed: what they wrote into the audit log still verifies. */
  former: v.pipe(
    v.array(v.strictObject({ id: idSchema('relay'), auditKey: bytes(32) })),
    v.maxLength(128),
  ),
});
export type ControlPlanes = v.InferOutput<typeof controlPlanesSchema>;

/** Signed by the relay's own Ed25519 key and by each key that it offers (kind `joining`): one text, four signatures. */
export const joiningSchema = v.strictObject({ relay: idSchema('relay'), ...keys });
export type Joining = v.InferOutput<typeof joiningSchema>;

export const joinRequest = v.strictObject({
  relay: statementText,
  grant: statementText,
  roster: statementText,
  audit: statementText,
});
export type JoinRequest = v.InferOutput<typeof joinRequest>;

/** The first bundle that names the keys. */
export const joinAnswer = v.strictObject({
  bundle: statementText,
  sealKey: v.optional(bytes(32)), // for what is secret in the store; since wire version 4
});
