import { ZtnaError, type Hop } from '../errors.ts';
import { strangersCertificate, type SeenCertificate } from './network-error.ts';
import { describeAddress } from './relay-address.ts';
import { systemCode } from './state-dir.ts';

/** How far a dial had come when it failed. */
export type DialStage = 'connect' | 'tls' | 'upgrade';

export interface DialFailure {
  readonly url: string;
  readonly stage: DialStage;
  /** Certificate of whoever answered; undefined when none was seen. */
  readonly seen?: SeenCertificate | undefined;
  /** The CAs that were trusted. */
  readonly authorities?: readonly string[];
}

type Explanation = readonly [hop: Hop, reason: string, message: string, hint: string];

const unknownIssuer = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'INVALID_CA',
  'UNSPECIFIED',
]);

/** What TLS says when our own certificate is what the other end refuses. */
const ourCertificateRefused = new Set([
  'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
  'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
  'ERR_SSL_TLSV1_ALERT_ACCESS_DENIED',
  'ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED',
  'ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN',
  'ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE',
]);

/** Why a dial failed, for people: which hop, what to do next. Decided on codes alone. */
export function explainDialError(error: unknown, failure: DialFailure): ZtnaError {
  if (error instanceof ZtnaError) return error;
  const code = systemCode(error) ?? '';
  if (ourCertificateRefused.has(code)) {
    return new ZtnaError('ERR_IDENTITY_UNAUTHENTICATED', {
      message: 'the relay refused the certificate of this machine',
      hint: 'it may have ended or been revoked: enrol this machine again',
      hop: 'relay',
      reason: 'certificate_refused',
      cause: error,
    });
  }
  if (unknownIssuer.has(code)) {
    return strangersCertificate(failure.url, failure.seen, failure.authorities ?? [], error);
  }
  const [hop, reason, message, hint] = explain(code, failure);
  return new ZtnaError('ERR_RELAY_UNREACHABLE', { hop, reason, message, hint, cause: error });
}

/** True for the codes of a certificate that none of the trusted CAs has issued. */
export function isUnknownIssuer(code: string): boolean {
  return unknownIssuer.has(code);
}

function explain(code: string, { url, stage }: DialFailure): Explanation {
  const { host, address } = describeAddress(url);
  if (code === 'ENOTFOUND' || code.startsWith('EAI_')) {
    return [
      'network',
      'name_unknown',
      `the name ${host} could not be resolved (${code})`,
      'check the network connection and the name servers of this machine',
    ];
  }
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL') return protocolMissing(address);
  if (code.startsWith('ERR_SSL_')) {
    return [
      'network',
      'tls_failed',
      `${address} does not speak TLS as the relay does (${code})`,
      'check that the address is the relay’s, and that nothing on the way answers in its place',
    ];
  }
  switch (code) {
    case 'ECONNREFUSED':
      return [
        'relay',
        'connection_refused',
        `nothing listens at ${address}`,
        'check that the relay runs and that the address is right',
      ];
    case 'ENOENT':
      return ['relay', 'not_running', 'the relay’s own socket is not there', 'start the relay'];
    case 'ETIMEDOUT':
      return [
        'network',
        'timed_out',
        stage === 'connect' ? `${address} did not answer in time` : `${address} fell silent`,
        'check whether a firewall blocks that address',
      ];
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ENETDOWN':
    case 'EADDRNOTAVAIL':
      return [
        'network',
        'no_route',
        `there is no way to ${address} (${code})`,
        'check the network connection of this machine',
      ];
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return [
        'relay',
        'certificate_dates',
        `the certificate at ${address} is not valid at this machine’s time`,
        'check the clock of this machine, then that of the relay',
      ];
    case 'INVALID_PURPOSE':
      return [
        'relay',
        'certificate_purpose',
        `the certificate at ${address} is none of a server`,
        'check that the address is the relay’s: another machine of this deployment answers there',
      ];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [
        'relay',
        'certificate_name',
        `the certificate at ${address} is for another name`,
        'use the address that the relay was set up with',
      ];
    case 'ECONNRESET':
    case 'EPIPE':
      return stage === 'upgrade'
        ? [
            'relay',
            'closed_unanswered',
            `${address} closed the connection without an answer`,
            'if this stays, the certificate of this machine may have ended or been revoked',
          ]
        : [
            'network',
            'connection_reset',
            `the connection to ${address} was cut off`,
            'check that the relay runs and that no firewall cuts the connection',
          ];
    default:
      return [
        'network',
        'connection_failed',
        `no connection to ${address} could be made (${code || 'unknown'})`,
        'check the network connection of this machine',
      ];
  }
}

function protocolMissing(address: string): Explanation {
  return [
    'relay',
    'protocol_missing',
    `what answers at ${address} does not take up our protocol`,
    'check that the address is the relay’s, that nothing on the way ends TLS, and that both run versions that fit',
  ];
}

/** The error for a TLS connection on which the other end did not take up our protocol. */
export function wrongProtocol(url: string): ZtnaError {
  const [hop, reason, message, hint] = protocolMissing(describeAddress(url).address);
  return new ZtnaError('ERR_RELAY_UNREACHABLE', { hop, reason, message, hint });
}

/** An error in the form of a system error, for limits that are ours. */
export function timeoutError(): Error {
  return Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' });
}
