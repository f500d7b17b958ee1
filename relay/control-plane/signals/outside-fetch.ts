import { lookup as resolveName, type LookupAddress } from 'node:dns';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { mayDial } from './address-rules.ts';
import { maxOutsideBytes, outsideTimeoutMs } from './limits.ts';

export interface OutsideRequest {
  /** https only. */
  readonly url: string;
  readonly method: 'GET' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly allowPrivate: boolean;
  /** PEM; else the authorities that this machine trusts. */
  readonly ca?: string | null;
  readonly signal?: AbortSignal;
}

export interface OutsideAnswer {
  readonly status: number;
  /** Empty where the answer does not say. */
  readonly contentType: string;
  readonly text: string;
}

/**
 * One request to a server that an operator named: over TLS, to an address that was looked at and no other, followed
 * nowhere, over within 5 s as a whole, its answer within 256 KiB. Throws ERR_CONFIG_INVALID for an URL that may not be
 * asked, else ERR_RELAY_UNAVAILABLE with a reason: `outside_address_refused`, `outside_too_large`,
 * `outside_timeout`, `outside_unreachable`.
 */
export async function fetchOutside(request: OutsideRequest): Promise<OutsideAnswer> {
  const url = checkUrl(request.url);
  const literal = url.hostname.replace(/^\[(.*)\]$/, '$1');
  // A literal address is never looked up, so it is judged here.
  if (isIP(literal) !== 0 && !mayDial(literal, request.allowPrivate)) throw addressRefused(url);
  const deadline = AbortSignal.timeout(outsideTimeoutMs);
  const signal = request.signal ? AbortSignal.any([deadline, request.signal]) : deadline;
  try {
    return await exchange(url, request, signal);
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    const hasTimedOut = deadline.aborted && request.signal?.aborted !== true;
    const reason = hasTimedOut ? 'outside_timeout' : 'outside_unreachable';
    const what = hasTimedOut
      ? 'did not answer within 5 s'
      : `cannot be reached (${detailOf(cause)})`;
    throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
      message: `${url.host} ${what}`,
      reason,
      cause,
    });
  }
}

/** https with a host, without a user or password: those would end up in logs. Throws ERR_CONFIG_INVALID. */
export function checkUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'https:' && url.username === '' && url.password === '') return url;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: 'an URL must begin with https:// and hold no password',
    reason: 'outside_url_refused',
  });
}

function exchange(url: URL, request: OutsideRequest, signal: AbortSignal): Promise<OutsideAnswer> {
  const { method, headers = {}, body } = request;
  return new Promise((resolve, reject) => {
    const outgoing = httpsRequest(
      url,
      {
        method,
        signal,
        agent: false,
        lookup: (hostname, options, callback) => {
          lookUp(url, hostname, request.allowPrivate).then(
            (addresses) => {
              if (options.all === true) callback(null, addresses);
              else callback(null, addresses[0]?.address ?? '', addresses[0]?.family ?? 0);
            },
            (error: unknown) => {
              callback(toZtnaError(error), '', 0);
            },
          );
        },
        headers: {
          ...headers,
          ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
          'accept-encoding': 'identity',
          'user-agent': 'ztna-relay',
        },
        maxHeaderSize: 16_384,
        minVersion: 'TLSv1.2',
        ...(request.ca === undefined || request.ca === null ? {} : { ca: request.ca }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > maxOutsideBytes) {
            reject(
              new ZtnaError('ERR_RELAY_UNAVAILABLE', {
                message: `${url.host} answered with more than 256 KiB`,
                reason: 'outside_too_large',
              }),
            );
            outgoing.destroy();
          } else chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('aborted', () => {
          reject(new Error('aborted'));
        });
        response.on('end', () => {
          resolve({
            status: response.statusCode ?? 0,
            contentType: response.headers['content-type'] ?? '',
            text: Buffer.concat(chunks).toString('utf8'),
          });
        });
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** Every address of the name, if each may be dialled: the connection goes to one of these and asks nobody again. */
async function lookUp(url: URL, hostname: string, allowPrivate: boolean): Promise<LookupAddress[]> {
  const addresses = await new Promise<LookupAddress[]>((resolve, reject) => {
    resolveName(hostname, { all: true }, (error, found) => {
      if (error) reject(error);
      else resolve(found);
    });
  });
  if (addresses.length > 0 && addresses.every(({ address }) => mayDial(address, allowPrivate))) {
    return addresses;
  }
  throw addressRefused(url);
}

function addressRefused(url: URL): ZtnaError {
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: `${url.hostname} is at an address that may not be asked`,
    hint: 'where a private address is meant, say so: allowPrivate: true, or --allow-private',
    reason: 'outside_address_refused',
  });
}

/** What the system calls the failure; texts of others stay out of logs. */
function detailOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code.toLowerCase() : 'failed';
}
