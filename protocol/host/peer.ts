import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Bundle } from '../bundle.ts';
import { ZtnaError } from '../errors.ts';
import { isId } from '../id.ts';

/** What a certificate says its holder is. */
export const roles = ['control-plane', 'data-plane', 'connector', 'device'] as const;
export type Role = (typeof roles)[number];

export interface PeerIdentity {
  readonly role: Role;
  /** `con_…`, `dev_…`, `rel_…`, or `cp` for a control plane. */
  readonly id: string;
}

function isIdOf(role: string, id: string): boolean {
  switch (role) {
    case 'control-plane':
      return id === 'cp';
    case 'data-plane':
      return isId('relay', id);
    case 'connector':
      return isId('connector', id);
    case 'device':
      return isId('device', id);
    default:
      return false;
  }
}

/** The URI that a certificate of that role and id carries as subject alternative name. */
export function roleUri(peer: PeerIdentity): string {
  return `ztna://${peer.role}/${peer.id}`;
}

/** Role and id from a leaf certificate's one `ztna:` URI. Throws ERR_IDENTITY_ROLE for none, several or another form. */
export function certificateIdentity(certificate: {
  readonly subjectAltName: string | undefined;
}): PeerIdentity {
  const names = certificate.subjectAltName ?? '';
  // OpenSSL quotes a name that holds a separator; our own never do, and splitting one could forge a name.
  const uris = names.includes('"') ? [] : names.split(', ').filter((n) => n.startsWith('URI:'));
  const [, role, id] = /^URI:ztna:\/\/([a-z-]{1,20})\/([a-z0-9_]{1,40})$/.exec(uris[0] ?? '') ?? [];
  if (uris.length !== 1 || role === undefined || id === undefined || !isIdOf(role, id)) {
    throw new ZtnaError('ERR_IDENTITY_ROLE', { reason: 'role_missing' });
  }
  return { role: role as Role, id };
}

/**
 * Who the other end of a verified TLS connection is, by its leaf certificate. Throws ERR_IDENTITY_UNAUTHENTICATED
 * when TLS verified no certificate, ERR_IDENTITY_ROLE when the certificate states no role. On the dialling side Node
 * answers this once for each connection; keep the answer.
 */
export function peerIdentity(socket: TLSSocket): PeerIdentity {
  const certificate = socket.getPeerX509Certificate();
  if (!socket.authorized || certificate === undefined) {
    throw new ZtnaError('ERR_IDENTITY_UNAUTHENTICATED', { reason: 'certificate_missing' });
  }
  return certificateIdentity(certificate);
}

/** When a certificate begins and ends, and when to replace it: at half its life. The machine's own clock, ms. */
export function certificateLife(certificate: X509Certificate): {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly renewAtMs: number;
} {
  const notBeforeMs = certificate.validFromDate.getTime();
  const notAfterMs = certificate.validToDate.getTime();
  return { notBeforeMs, notAfterMs, renewAtMs: (notBeforeMs + notAfterMs) / 2 };
}

/** True where the certificate was issued by a CA that the bundle names: that of a removed control plane opens nothing. */
export function isIssuedByListed(identity: {
  readonly certificatePem: string;
  readonly bundle: Pick<Bundle, 'authorities'>;
}): boolean {
  const certificate = new X509Certificate(identity.certificatePem);
  return identity.bundle.authorities.some((ca) => isSignedBy(certificate, ca));
}

function isSignedBy(certificate: X509Certificate, caPem: string): boolean {
  try {
    return certificate.verify(new X509Certificate(caPem).publicKey);
  } catch {
    return false; // it vouches for nobody
  }
}
