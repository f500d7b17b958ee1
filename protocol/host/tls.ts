import { constants } from 'node:crypto';
import { isIP } from 'node:net';
import {
  checkServerIdentity,
  connect,
  createSecureContext,
  type SecureContext,
  type TlsOptions,
  type TLSSocket,
} from 'node:tls';
import { toZtnaError, ZtnaError } from '../errors.ts';
import { findCarrier, type Carrier } from './carrier.ts';
import {
  explainDialError,
  isUnknownIssuer,
  timeoutError,
  wrongProtocol,
  type DialStage,
} from './dial-error.ts';
import { readCertificate, strangersCertificate, type SeenCertificate } from './network-error.ts';
import { certificateIdentity, type Role } from './peer.ts';
import { addressOf } from './relay-address.ts';
import { systemCode } from './state-dir.ts';
import { findPortal, isNotTls, isTlsRefused, lookAtCertificate } from './tls-diagnosis.ts';

/** Time for DNS, TCP and TLS together. */
export const defaultDialTimeoutMs = 10_000;

/** A dial that waits for its turn asks after so long whether the other machine is still there. */
const keepAliveMs = 5_000;

const tls13 = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const;

export interface SecureServerOptions {
  readonly keyPem: string;
  /** The leaf, followed by its issuers if there are any. */
  readonly certificatePem: string;
  /** CAs that a client's certificate must come from; null when none is asked for. */
  readonly clientAuthorities: readonly string[] | null;
  /** The application protocols served, all others are refused. */
  readonly alpn: readonly string[];
  readonly handshakeTimeoutMs?: number;
}

/** TLS options of every listener: 1.3 only, no session that could outlive a certificate, one list of protocols. */
export function secureServerOptions(options: SecureServerOptions): TlsOptions {
  const { clientAuthorities } = options;
  return {
    ...tls13,
    key: options.keyPem,
    cert: options.certificatePem,
    // A resumed session in Node is believed without its certificate being verified again.
    secureOptions: constants.SSL_OP_NO_TICKET,
    ALPNProtocols: [...options.alpn],
    handshakeTimeout: options.handshakeTimeoutMs ?? 5_000,
    requestCert: clientAuthorities !== null,
    rejectUnauthorized: true,
    ...(clientAuthorities === null ? {} : { ca: [...clientAuthorities] }),
  };
}

/** What a dialler shows of itself and whom it believes. */
export interface DialIdentity {
  readonly tlsKeyPem: string;
  readonly certificatePem: string;
  readonly bundle: { readonly authorities: readonly string[] };
}

export interface SecureDial {
  readonly url: string;
  readonly alpn: string;
  /** Offered behind `alpn`, for an end that does not know that name yet. */
  readonly olderAlpn?: string;
  /** Unix socket to connect to in place of the URL's address; names are checked all the same. */
  readonly socketPath?: string;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  /**
   * For TLS, from the moment in which the connection was taken, in place of what is left of `timeoutMs`: a relay that
   * a crowd comes back to has each wait for its turn, and whoever gives up begins at the end again.
   */
  readonly patienceMs?: number;
  /**
   * `null` trusts anybody: only for reading something that proves itself. Otherwise the CAs of the deployment,
   * never the machine's own, and the role that the other end's certificate must state.
   */
  readonly trust: { readonly authorities: readonly string[]; readonly role: Role } | null;
  readonly identity?: DialIdentity;
}

// Parsing key and certificate costs about a millisecond; one identity dials many tunnels.
const contexts = new WeakMap<object, SecureContext>();

function contextOf(dial: SecureDial): SecureContext {
  const { identity } = dial;
  const known = identity && contexts.get(identity);
  if (known) return known;
  const context = createSecureContext({
    ...tls13,
    secureOptions: constants.SSL_OP_NO_TICKET,
    // An empty list of CAs is not the same as none given: that would mean the CAs of the machine.
    ca: [...(dial.trust?.authorities ?? [])],
    ...(identity ? { key: identity.tlsKeyPem, cert: identity.certificatePem } : {}),
  });
  if (identity) contexts.set(identity, context);
  return context;
}

/**
 * Connects, through a proxy where the environment names one, and finishes TLS. The other end is verified by CA, host
 * name and role, and it speaks `alpn`; whether it accepts *our* certificate shows only with its first answer (TLS
 * 1.3). Throws ERR_RELAY_UNREACHABLE, ERR_NETWORK_PROXY, ERR_NETWORK_INTERCEPTED or ERR_NETWORK_CAPTIVE_PORTAL with
 * hop and hint, ERR_IDENTITY_ROLE or ERR_IDENTITY_UNAUTHENTICATED.
 */
export async function dialTls(dial: SecureDial): Promise<TLSSocket> {
  const { signal } = dial;
  throwIfAborted(signal);
  const giveUp = new AbortController();
  const giveUpLate = () => {
    giveUp.abort(timeoutError());
  };
  let timer = setTimeout(giveUpLate, dial.timeoutMs ?? defaultDialTimeoutMs);
  const onAbort = () => {
    giveUp.abort(abortError(signal));
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  const progress: DialProgress = { stage: 'connect' };
  const onConnected = () => {
    progress.stage = 'tls';
    if (dial.patienceMs === undefined || giveUp.signal.aborted) return;
    clearTimeout(timer);
    timer = setTimeout(giveUpLate, dial.patienceMs);
  };
  try {
    const carrier = await findCarrier(dial, giveUp.signal);
    return await finishTls(dial, carrier, { progress, onConnected }, giveUp.signal);
  } catch (error) {
    const failure = { url: dial.url, ...progress, authorities: dial.trust?.authorities ?? [] };
    const found = giveUp.signal.aborted ? undefined : await diagnose(error, dial, progress);
    throw found ?? explainDialError(error, failure);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** How far a dial has come, and whom it has met. */
interface DialProgress {
  stage: DialStage;
  seen?: SeenCertificate | undefined;
}

async function finishTls(
  dial: SecureDial,
  carrier: Carrier,
  { progress, onConnected }: { readonly progress: DialProgress; readonly onConnected: () => void },
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { host } = addressOf(dial.url);
  const { trust } = dial;
  const offered = [dial.alpn, ...(dial.olderAlpn === undefined ? [] : [dial.olderAlpn])];
  return new Promise<TLSSocket>((resolve, reject) => {
    const socket = connect({
      ...carrier,
      ...(isIP(host) ? {} : { servername: host }),
      secureContext: contextOf(dial),
      ALPNProtocols: offered,
      rejectUnauthorized: trust !== null,
      checkServerIdentity: (_name, certificate) => {
        if (trust === null) return undefined;
        const mismatch = checkServerIdentity(host, certificate);
        if (mismatch) return mismatch;
        try {
          const peer = certificateIdentity({ subjectAltName: certificate.subjectaltname });
          if (peer.role === trust.role) return undefined;
          return wrongRole(peer.role, trust.role);
        } catch (error) {
          return error as ZtnaError;
        }
      },
    });
    socket.setNoDelay(true);
    const inner = 'socket' in carrier ? carrier.socket : undefined;
    const onAbort = () => {
      fail(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });

    function settle(): void {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', fail);
      socket.off('close', onClose);
    }
    function fail(error: unknown): void {
      settle();
      socket.on('error', () => undefined);
      socket.destroy();
      inner?.destroy();
      reject(error instanceof Error ? error : toZtnaError(error));
    }
    function onClose(): void {
      fail(Object.assign(new Error('closed'), { code: 'ECONNRESET' }));
    }
    // A machine that is gone without a word would be waited for in vain.
    if (dial.patienceMs !== undefined) socket.setKeepAlive(true, keepAliveMs);
    if (inner) onConnected();
    else socket.once('connect', onConnected);
    // What a proxy made is a socket of its own below ours, with an end of its own.
    inner?.on('error', () => undefined);
    socket.once('close', () => inner?.destroy());
    socket.on('error', fail);
    socket.on('close', onClose);
    // Comes before the verdict on the certificate; afterwards the certificate cannot be read any more. Not by
    // getPeerX509Certificate: on a client that leaves nothing for the verdict itself to read (Node 24).
    socket.prependOnceListener('secure', () => {
      if (trust !== null && isIssuerKnown(socket)) return;
      progress.seen = readCertificate(socket.getPeerCertificate(), dial.url);
    });
    socket.once('secureConnect', () => {
      if (!offered.includes(socket.alpnProtocol || '')) {
        fail(wrongProtocol(dial.url));
        return;
      }
      settle();
      // Whoever takes the socket over sees its end as `close`; until then an error must not end the process.
      socket.on('error', () => undefined);
      resolve(socket);
    });
    if (signal.aborted) onAbort();
  });
}

/**
 * True where nobody will ask what the certificate looked like, which is dear to read: what OpenSSL found of its chain, that
 * the verdict is made of afterwards. It is in a member that Node's types do not name; without it nothing is known.
 */
function isIssuerKnown(socket: TLSSocket): boolean {
  const { _handle: handle } = socket as TLSSocket & {
    readonly _handle?: { readonly verifyError?: () => unknown } | null;
  };
  return handle?.verifyError?.() === null;
}

/** Who it is that has answered in the relay's place, if that can be found out. */
async function diagnose(
  error: unknown,
  dial: SecureDial,
  { stage, seen }: DialProgress,
): Promise<ZtnaError | undefined> {
  const { url, trust } = dial;
  if (stage === 'connect' || dial.socketPath !== undefined) return undefined;
  const authorities = trust?.authorities ?? [];
  const code = systemCode(error) ?? '';
  if (isNotTls(code)) return findPortal(dial);
  const isUnfit = error instanceof ZtnaError && error.reason === 'protocol_missing';
  if (isUnknownIssuer(code) || (isUnfit && trust === null)) {
    return explainStranger(url, seen, authorities, error);
  }
  if (!isTlsRefused(code)) return undefined;
  const looked = await lookAtCertificate(dial, authorities);
  if (!looked || looked.isTrusted) return undefined;
  return explainStranger(url, looked.seen, authorities, error);
}

async function explainStranger(
  url: string,
  seen: SeenCertificate | undefined,
  authorities: readonly string[],
  cause: unknown,
): Promise<ZtnaError> {
  // Inspection makes certificates for the host that was asked for; a portal has but its own.
  const mayBePortal = seen?.isForHost === false && !seen.isOfRelay;
  const portal = mayBePortal ? await findPortal({ url: plainUrl(url) }) : undefined;
  return portal ?? strangersCertificate(url, seen, authorities, cause);
}

/** Where a browser would be sent to the portal: the same host, port 80. */
function plainUrl(url: string): string {
  const plain = new URL(url);
  return `http://${plain.hostname}/`;
}

function wrongRole(seen: Role, expected: Role): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_ROLE', {
    message: `a ${seen} answered where a ${expected} was expected`,
    hop: 'relay',
    reason: 'role_wrong',
  });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/** What an aborted attempt throws: the reason when it is one of our errors. */
export function abortError(signal: AbortSignal | undefined): ZtnaError {
  const reason: unknown = signal?.reason;
  if (reason instanceof ZtnaError) return reason;
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message: 'the attempt was given up',
    reason: 'aborted',
    cause: reason,
  });
}
