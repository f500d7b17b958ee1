import { X509Certificate } from 'node:crypto';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { ZtnaError } from '../errors.ts';
import { certificateIdentity } from './peer.ts';
import { addressOf, describeAddress } from './relay-address.ts';
import { escapeTerminal } from './terminal.ts';

/** What a certificate says of itself, read before anything about it was verified. */
export interface SeenCertificate {
  /** Distinguished names on one line. */
  readonly subject: string;
  readonly issuer: string;
  /** SHA-256 over the certificate, as browsers and OpenSSL show it. */
  readonly fingerprint: string;
  /** It states a role of ours: some relay's CA made it, whichever. */
  readonly isOfRelay: boolean;
  /** It is made out to the host that was dialled. */
  readonly isForHost: boolean;
}

/** The certificate that Node has seen at `url`; undefined when there was none. */
export function readCertificate(peer: PeerCertificate, url: string): SeenCertificate | undefined {
  // Without a certificate Node answers an empty object.
  const raw = peer.raw as Buffer | undefined;
  if (raw === undefined) return undefined;
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(raw);
  } catch {
    return undefined;
  }
  return {
    subject: oneLine(certificate.subject),
    issuer: oneLine(certificate.issuer),
    fingerprint: certificate.fingerprint256,
    isOfRelay: hasRole(certificate),
    isForHost: checkServerIdentity(addressOf(url).host, peer) === undefined,
  };
}

function hasRole(certificate: X509Certificate): boolean {
  try {
    certificateIdentity(certificate);
    return true;
  } catch {
    return false;
  }
}

/** A distinguished name as one line. Node answers undefined for an empty one, whatever the types say. */
function oneLine(name: string | undefined): string {
  return (name ?? '').split('\n').join(', ');
}

/** Text of whoever answered, for a message: short, and unable to move a cursor or to begin a line. */
export function quote(text: string): string {
  const maxLength = 200;
  return `“${escapeTerminal(text.length > maxLength ? `${text.slice(0, maxLength)}…` : text)}”`;
}

/**
 * The error for a certificate that no CA of `authorities` has issued: something on the way ends TLS, or the relay is
 * another one than this machine was enrolled with.
 */
export function strangersCertificate(
  url: string,
  seen: SeenCertificate | undefined,
  authorities: readonly string[],
  cause?: unknown,
): ZtnaError {
  const { address } = describeAddress(url);
  const certificate = seen
    ? `: subject ${quote(seen.subject)}, issuer ${quote(seen.issuer)}, SHA-256 ${seen.fingerprint}`
    : '';
  if (seen?.isOfRelay === true) {
    return new ZtnaError('ERR_NETWORK_INTERCEPTED', {
      message: `the relay at ${address} belongs to another deployment than this machine${certificate}; ${pinned(authorities)}`,
      hint: 'if the relay was set up anew, enrol this machine again with a new code; if not, somebody poses as it',
      hop: 'relay',
      reason: 'certificate_other_deployment',
      cause,
    });
  }
  return new ZtnaError('ERR_NETWORK_INTERCEPTED', {
    message: `the certificate at ${address} is not the relay’s${certificate}; ${pinned(authorities)}; nothing was sent`,
    hint: `this looks like TLS inspection: ask your network team to let ${address} through untouched (a bypass)`,
    hop: 'network',
    reason: 'certificate_stranger',
    cause,
  });
}

function pinned(authorities: readonly string[]): string {
  if (authorities.length === 0) return 'only the relay that the code names is trusted';
  const prints = authorities.map((pem) => new X509Certificate(pem).fingerprint256);
  return `trusted is only the relay’s own CA (SHA-256 ${prints.join(', ')})`;
}

/** The error for a network that answers in the relay's place until somebody signs in. */
export function captivePortal(where: string, location: string | undefined): ZtnaError {
  return new ZtnaError('ERR_NETWORK_CAPTIVE_PORTAL', {
    message:
      location === undefined
        ? `this network wants a sign-in: it answered in the place of ${where}`
        : `this network wants a sign-in: in the place of ${where} it pointed to ${quote(location)}`,
    hint: 'open a browser and sign in to the network; the connection then comes by itself',
    hop: 'network',
    reason: 'captive_portal',
  });
}
