import { generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import forge from 'node-forge';
import {
  grantSchema,
  rosterEntrySchema,
  signStatement,
  verifyBundle,
  type Bundle,
  type Grant,
  type RosterEntry,
  type SigningKey,
} from '../../protocol/index.ts';
import { roleUri, type Role } from '../../protocol/host/index.ts';
import { loadAuthority, type Authority } from '../../relay/control-plane/authority/index.ts';
import type { Deployment } from './deployment.ts';
import type { Credentials } from './relay-rig.ts';

const hourMs = 3_600_000;

/** One key for every certificate: making RSA keys is slow and proves nothing here. */
const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const tlsKeyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

/** Whoever holds a deployment's own keys: signs what its control plane never would. */
export class Insider {
  readonly authority: Authority;
  readonly bundle: Bundle;

  private constructor(authority: Authority) {
    this.authority = authority;
    this.bundle = verifyBundle(
      authority.signBundle({ version: 1, notAfterMs: Date.now() + hourMs }),
      { rootId: authority.rootId, minVersion: 1 },
      Date.now(),
    );
  }

  static async of(deployment: Deployment): Promise<Insider> {
    return new Insider(await loadAuthority(join(deployment.relayDir, 'control-plane')));
  }

  /** A certificate of the real CA for any role and id; it lasted from 15 minutes before `madeAtMs` for `lifeMs`. */
  async credentials(
    role: Role,
    id: string,
    { madeAtMs = Date.now(), lifeMs = hourMs }: { madeAtMs?: number; lifeMs?: number } = {},
  ): Promise<Credentials> {
    const leaf = { role, id, hosts: ['127.0.0.1'], lifeMs, nowMs: madeAtMs };
    const { pem } = await this.authority.issueForKey(publicKey, leaf);
    return { tlsKeyPem, certificatePem: pem, bundle: this.bundle };
  }

  /** The grant with changes, signed by the grant key or another. */
  grant(
    statement: string,
    changes: Partial<Grant>,
    key: SigningKey = this.authority.grantKey,
  ): string {
    return signStatement('grant', grantSchema, { ...claimOf<Grant>(statement), ...changes }, key);
  }

  /** The roster entry with changes, signed by the roster key or another. */
  roster(
    statement: string,
    changes: Partial<RosterEntry>,
    key: SigningKey = this.authority.rosterKey,
  ): string {
    const entry = { ...claimOf<RosterEntry>(statement), ...changes };
    return signStatement('roster', rosterEntrySchema, entry, key);
  }
}

/**
 * A certificate that says whatever its holder likes: signed by itself, or by a leaf as if that were an authority, which
 * then follows in the same text. Its key is that of every `credentials`.
 */
export function forgedCertificate(peer: { role: Role; id: string }, leafPem = ''): string {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(
    publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  );
  certificate.serialNumber = '42';
  certificate.validity.notBefore = new Date(Date.now() - hourMs);
  certificate.validity.notAfter = new Date(Date.now() + hourMs);
  const own = [{ name: 'commonName', value: peer.id }];
  const issuer = leafPem && forge.pki.certificateFromPem(leafPem).subject.attributes;
  certificate.setSubject(own);
  certificate.setIssuer(issuer || own);
  certificate.setExtensions([
    { name: 'keyUsage', digitalSignature: true, critical: true },
    { name: 'extKeyUsage', clientAuth: true },
    { name: 'subjectAltName', altNames: [{ type: 6, value: roleUri(peer) }] },
  ]);
  certificate.sign(forge.pki.privateKeyFromPem(tlsKeyPem), forge.md.sha256.create());
  return forge.pki.certificateToPem(certificate) + leafPem;
}

/** What a statement says, unverified. */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- the caller knows the kind
export function claimOf<T>(statement: string): T {
  const payload = statement.split('.')[2] ?? '';
  return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as T;
}
