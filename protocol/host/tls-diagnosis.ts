import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { ZtnaError } from '../errors.ts';
import { findCarrier, openCarrier, type CarrierTarget } from './carrier.ts';
import { http } from './http.ts';
import { captivePortal, readCertificate, type SeenCertificate } from './network-error.ts';
import { addressOf, describeAddress } from './relay-address.ts';

/** Finding out why TLS failed may take so long, each time. */
const lookWithinMs = 3_000;

/** What TLS says when the other end spoke something else, such as plain HTTP. */
const notTls = new Set(['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG']);

/** What TLS says when the other end cannot take what we insist on, before it has shown a certificate. */
const tlsRefused = new Set([
  'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL',
  'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
  'ERR_SSL_UNSUPPORTED_PROTOCOL',
  'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
]);

export function isNotTls(code: string): boolean {
  return notTls.has(code);
}

export function isTlsRefused(code: string): boolean {
  return tlsRefused.has(code);
}

/**
 * The certificate of whoever answers in TLS of any version, by that protocol or else any, and whether one of `authorities`
 * vouches for it. Nothing is sent but the greeting. Answers undefined when none was shown.
 */
export async function lookAtCertificate(
  target: CarrierTarget,
  authorities: readonly string[],
  alpn?: string,
): Promise<{ readonly seen: SeenCertificate; readonly isTrusted: boolean } | undefined> {
  const { url } = target;
  const { host } = addressOf(url);
  return within(lookWithinMs, async (signal) => {
    const socket = connect({
      ...(await findCarrier(target, signal)),
      ...(isIP(host) ? {} : { servername: host }),
      ca: [...authorities],
      ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
      // Read and thrown away: what is not to be trusted is what this is to name.
      rejectUnauthorized: false,
    });
    try {
      await settled(socket, 'secureConnect', signal);
      const seen = readCertificate(socket.getPeerCertificate(), url);
      return seen && { seen, isTrusted: socket.authorized };
    } finally {
      socket.destroy();
    }
  });
}

/**
 * The error for a captive portal if one answers plain HTTP at the target: it redirects elsewhere, asks for a sign-in
 * (511) or shows a page. The request tells no more than the name of the host.
 */
export async function findPortal(target: CarrierTarget): Promise<ZtnaError | undefined> {
  const { host } = addressOf(target.url);
  return within(lookWithinMs, async (signal) => {
    const carrier = await openCarrier(target, signal);
    try {
      const asking = http.request({
        createConnection: () => carrier,
        host,
        path: '/',
        headers: { accept: 'text/html', connection: 'close' },
        signal,
      });
      const answered = new Promise<IncomingMessage>((resolve, reject) => {
        asking.once('response', resolve);
        asking.once('error', reject);
      });
      asking.on('error', () => undefined);
      asking.end();
      const { statusCode = 0, headers } = await answered;
      const { location } = headers;
      const isElsewhere = statusCode >= 300 && statusCode < 400 && leadsElsewhere(location, host);
      const isPage = statusCode === 200 && /\bhtml\b/i.test(headers['content-type'] ?? '');
      if (statusCode !== 511 && !isElsewhere && !isPage) return undefined;
      return captivePortal(describeAddress(target.url).address, location);
    } finally {
      carrier.destroy();
    }
  });
}

function leadsElsewhere(location: string | undefined, host: string): boolean {
  if (location === undefined) return false;
  const to = URL.parse(location, `http://${isIP(host) === 6 ? `[${host}]` : host}/`);
  return to !== null && addressOf(to.href).host !== host;
}

/** What `look` answers, or undefined when it fails or takes too long: a diagnosis never hides the error it is for. */
async function within<T>(
  timeoutMs: number,
  look: (signal: AbortSignal) => Promise<T | undefined>,
): Promise<T | undefined> {
  const giveUp = new AbortController();
  const timer = setTimeout(() => {
    giveUp.abort(new ZtnaError('ERR_RELAY_UNREACHABLE', { reason: 'timed_out' }));
  }, timeoutMs);
  try {
    return await look(giveUp.signal);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for the event; rejects on an error, the end, or when the signal aborts. */
async function settled(socket: TLSSocket, event: string, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const fail = () => {
      reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    };
    socket.once(event, resolve);
    socket.on('error', fail).once('close', fail);
    signal.addEventListener('abort', fail, { once: true });
    if (signal.aborted) fail();
  });
}
