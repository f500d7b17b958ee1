import * as v from 'valibot';
import { idSchema } from './id.ts';
import { bytes, natural, text } from './schema.ts';
import { verifyStatement, type VerifyingKey } from './statement.ts';

/** What a check found: `on` is healthy, `unknown` never counts as it. */
export const checkResults = ['on', 'off', 'unknown'] as const;
export type CheckResult = (typeof checkResults)[number];

/** The checks that every client runs; a deployment's own are further ones. */
export const builtInChecks = [
  'disk_encryption',
  'firewall',
  'screen_lock',
  'antivirus',
  'secure_boot',
  'patched', // no update waits
  'physical', // no virtual machine
] as const;

/** What policies read of a device beside checks. A check cannot take such a name. */
export const postureMeasures = [
  'os_version',
  'os_version_number',
  'os_build',
  'client_version',
  'client_version_number',
  'age_seconds',
] as const;

/** Why a tunnel is held back until something about its device is as it has to be. */
const deviceReasons: readonly string[] = [
  'posture_unhealthy',
  'posture_stale', // it says nothing of itself, or nothing lately
  'device_restricted', // its management says so
];

/** True where it is the device, and neither its user nor a decision, that holds a tunnel back. */
export function isDeviceReason(reason: string): boolean {
  return deviceReasons.includes(reason);
}

/** As many checks as one statement may hold, those of the deployment included. */
export const maxPostureChecks = 64;

/** The largest statement of posture, in bytes. */
export const maxPostureBytes = 16_384;

/** A check's name: the word that policies read it by, `context.posture.<name>`. */
export const checkName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9_]{0,31}$/));

/** One fact about a device: which, what was found, and how it was found out. */
export const postureCheckSchema = v.tuple([checkName, v.picklist(checkResults), text(128)]);
export type PostureCheck = v.InferOutput<typeof postureCheckSchema>;

/** What a device says of itself; versions as text, empty when they are not known. */
export const postureFactsSchema = v.strictObject({
  platform: v.picklist(['linux', 'darwin', 'win32', 'other']),
  osVersion: text(64),
  clientVersion: text(32),
  checks: v.pipe(v.array(postureCheckSchema), v.maxLength(maxPostureChecks)),
});
export type DevicePosture = v.InferOutput<typeof postureFactsSchema>;

/**
 * The payload of a statement of kind `posture`, signed with the device's Ed25519 key. It counts on the control channel whose
 * nonce it names, behind all of lower sequence; `atMs` is when the facts were collected, in control time.
 */
export const postureStatementSchema = v.strictObject({
  device: idSchema('device'),
  nonce: bytes(16),
  sequence: natural,
  atMs: natural,
  facts: postureFactsSchema,
});
export type PostureStatement = v.InferOutput<typeof postureStatementSchema>;

/** Throws ERR_STATEMENT_REFUSED unless `key`, the device's own, has signed it; ERR_MESSAGE_* for a payload that cannot be read. */
export function verifyPosture(statement: string, key: VerifyingKey): PostureStatement {
  return verifyStatement('posture', postureStatementSchema, statement, [key], maxPostureBytes);
}

/**
 * A check that a deployment asks for beside those that every client runs. Files are looked at, never run: `sha256` is that
 * of the file, in hex, where its content matters.
 */
export const extraCheckSchema = v.variant('kind', [
  v.strictObject({ kind: v.literal('process'), id: checkName, name: text(128) }),
  v.strictObject({ kind: v.literal('no_process'), id: checkName, name: text(128) }),
  v.strictObject({
    kind: v.literal('file'),
    id: checkName,
    path: text(512),
    sha256: v.nullable(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
  }),
  v.strictObject({ kind: v.literal('no_file'), id: checkName, path: text(512) }),
  v.strictObject({
    kind: v.literal('registry'), // Windows
    id: checkName,
    key: text(512), // HKLM\… or HKCU\…
    value: v.nullable(text(128)), // its name; null: the key itself
    equals: v.nullable(text(256)),
  }),
]);
export type ExtraCheck = v.InferOutput<typeof extraCheckSchema>;
