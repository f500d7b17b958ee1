import { createPublicKey, X509Certificate, type KeyObject } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type * as v from 'valibot';
import { openStateDir } from '../../../protocol/host/index.ts';
import {
  bundleSchema,
  controlPlanesSchema,
  rawPublicKey,
  rootIdOf,
  rosterEntrySchema,
  signingKey,
  signStatement,
  verifyingKey,
  verifyStatement,
  ZtnaError,
  type ControlPlaneKeys,
  type ControlPlanes,
  type RosterEntry,
  type SigningKey,
} from '../../../protocol/index.ts';
import {
  createCertificateAuthority,
  issueCertificate,
  type IssuedCertificate,
  type LeafRequest,
} from './certificate.ts';
import { verifyCertificateRequest } from './certificate-request.ts';
import { createFile, createSigningKeyFile, readKeyFile } from './key-file.ts';

const files = {
  rootKey: 'root.key',
  rootPublicKey: 'root.pub',
  grantKey: 'grant.key',
  rosterKey: 'roster.key',
  auditKey: 'audit.key',
  authorityKey: 'ca.key',
  authority: 'ca.pem',
} as const;

/** The deployment's own keys, and all that they sign besides grants, leases and times. */
export interface Authority {
  /** SHA-256 of the root's raw public key, in hex: the tenant's id. */
  readonly rootId: string;
  readonly certificatePem: string;
  readonly grantKey: SigningKey;
  readonly rosterKey: SigningKey;
  readonly auditKey: SigningKey;
  /** True while the root's private key lies here, so that bundles can be signed. */
  readonly hasRoot: boolean;
  /** The public keys of this control plane, which is called `id`. */
  publicKeys(id: ControlPlaneKeys['id']): ControlPlaneKeys;
  /** Signs which control planes there are. Throws as `signBundle`. */
  signControlPlanes(value: ControlPlanes): string;
  /** Checks the root's word on which control planes there are. Throws ERR_STATEMENT_REFUSED. */
  verifyControlPlanes(statement: string): ControlPlanes;
  /** Signs a bundle that names the keys of `members`. Throws ERR_CONFIG_NOT_FOUND when the root is elsewhere. */
  signBundle(bundle: {
    readonly version: number;
    readonly notAfterMs: number;
    /** Default: this one alone. */
    readonly members?: readonly ControlPlaneKeys[];
  }): string;
  signRosterEntry(entry: RosterEntry): string;
  /**
   * Issues a certificate for the key of a PKCS#10 request whose own signature was verified.
   * Throws ERR_IDENTITY_KEY_REFUSED.
   */
  issueFromRequest(requestPem: string, leaf: LeafRequest): Promise<IssuedCertificate>;
  /** Issues a certificate for a key that this process made itself. */
  issueForKey(publicKey: KeyObject, leaf: LeafRequest): Promise<IssuedCertificate>;
}

/**
 * Makes grant, roster and audit keys and a certificate authority in `directory` (0700, files 0600), and a root unless the
 * raw public key of one that is elsewhere is given. Throws ERR_CONFIG_EXISTS and touches nothing when one of the
 * files is there.
 */
export async function createAuthority(options: {
  readonly directory: string;
  readonly nowMs: number;
  readonly root?: Buffer;
}): Promise<Authority> {
  const { nowMs } = options;
  const directory = await openStateDir(options.directory);
  const at = (name: string) => join(directory, name);
  const existing = Object.values(files).find((name) => existsSync(at(name)));
  if (existing) {
    throw new ZtnaError('ERR_CONFIG_EXISTS', {
      message: `${at(existing)} exists already`,
      hint: 'choose another --dir; keys are never overwritten',
    });
  }
  const made: string[] = [];
  const make = <T>(name: string, write: (path: string) => T): T => {
    const result = write(at(name));
    made.push(name);
    return result;
  };
  try {
    const root = options.root
      ? fromRawPublicKey(options.root)
      : createPublicKey(make(files.rootKey, createSigningKeyFile));
    const rootPem = root.export({ type: 'spki', format: 'pem' }).toString();
    make(files.rootPublicKey, (path) => createFile(path, rootPem, 0o644));
    for (const name of [files.grantKey, files.rosterKey, files.auditKey])
      make(name, createSigningKeyFile);
    const { keyPem, certificatePem } = await createCertificateAuthority(nowMs);
    make(files.authorityKey, (path) => createFile(path, keyPem));
    make(files.authority, (path) => createFile(path, certificatePem, 0o644));
  } catch (error) {
    for (const name of made) rmSync(at(name), { force: true });
    throw error;
  }
  return loadAuthority(directory);
}

/**
 * Reads what `createAuthority` made. The root's private key may be elsewhere.
 * Throws ERR_CONFIG_NOT_FOUND, ERR_CONFIG_PERMISSIONS or ERR_CONFIG_INVALID, naming the file.
 */
export async function loadAuthority(directory: string): Promise<Authority> {
  const at = (name: string) => join(directory, name);
  const root = existsSync(at(files.rootKey))
    ? await readKeyFile(at(files.rootKey), 'ed25519')
    : undefined;
  const rootPublicKey = rawPublicKey(
    root ?? (await readPublicFile(at(files.rootPublicKey), createPublicKey)),
  );
  const grantKey = signingKey(await readKeyFile(at(files.grantKey), 'ed25519'));
  const rosterKey = signingKey(await readKeyFile(at(files.rosterKey), 'ed25519'));
  const auditKey = signingKey(await readKeyFile(at(files.auditKey), 'ed25519'));
  const authorityKey = await readKeyFile(at(files.authorityKey), 'rsa');
  const certificate = await readPublicFile(at(files.authority), (pem) => new X509Certificate(pem));
  if (!certificate.checkPrivateKey(authorityKey)) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `${at(files.authority)} is not for its key`,
    });
  }
  const certificatePem = certificate.toString();
  const authority = { certificatePem, privateKey: authorityKey };
  const encode = (key: KeyObject) => rawPublicKey(key).toString('base64url');
  const publicKeys = (id: ControlPlaneKeys['id']): ControlPlaneKeys => ({
    id,
    grantKey: encode(grantKey.privateKey),
    rosterKey: encode(rosterKey.privateKey),
    auditKey: encode(auditKey.privateKey),
    authority: certificatePem,
  });

  return {
    rootId: rootIdOf(rootPublicKey),
    certificatePem,
    grantKey,
    rosterKey,
    auditKey,
    hasRoot: root !== undefined,

    publicKeys,

    signControlPlanes: (value) =>
      signStatement('control-planes', controlPlanesSchema, value, rootSigningKey(root)),

    verifyControlPlanes: (statement) =>
      verifyStatement('control-planes', controlPlanesSchema, statement, [
        verifyingKey(rootPublicKey),
      ]),

    signBundle({ version, notAfterMs, members = [publicKeys('cp')] }) {
      const key = rootSigningKey(root);
      const value: v.InferInput<typeof bundleSchema> = {
        version,
        root: rootPublicKey.toString('base64url'),
        nextRoot: null,
        grantKeys: members.map((member) => member.grantKey),
        rosterKeys: members.map((member) => member.rosterKey),
        authorities: members.map((member) => member.authority),
        notAfterMs,
      };
      return signStatement('bundle', bundleSchema, value, key);
    },

    signRosterEntry: (entry) => signStatement('roster', rosterEntrySchema, entry, rosterKey),

    async issueFromRequest(requestPem, leaf) {
      const { publicKey } = verifyCertificateRequest(requestPem);
      return issueCertificate(authority, publicKey, leaf);
    },

    issueForKey: (publicKey, leaf) => issueCertificate(authority, publicKey, leaf),
  };
}

function rootSigningKey(root: KeyObject | undefined): SigningKey {
  if (root) return signingKey(root);
  throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
    message: 'the root key is not on this machine',
    hint: 'sign the bundle where the root key is',
  });
}

async function readPublicFile<T>(path: string, parse: (text: string) => T): Promise<T> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `${path} is missing`, cause });
  }
  try {
    return parse(text);
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} could not be read`, cause });
  }
}

/** An Ed25519 key from its 32 bytes. */
function fromRawPublicKey(raw: Buffer): KeyObject {
  const x = raw.toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
}
