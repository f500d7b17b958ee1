import { getProxyForUrl } from 'proxy-from-env';
import { ZtnaError } from '../errors.ts';
import { isListedAddress, isLoopback } from './no-proxy.ts';
import { addressOf, connectAddress, showAddress, type RelayAddress } from './relay-address.ts';

/** The HTTP proxy that connections to one address go through. */
export interface Proxy {
  /** Without user name and password. */
  readonly url: URL;
  /** Scheme, host and port alone. */
  readonly name: string;
  /** The environment variable that named it. */
  readonly variable: string;
  /** Value of the header that shows user name and password, if there are any: never for logs or messages. */
  readonly authorization: string | undefined;
}

/** In the order in which they count; as everywhere, the small one of a pair before the large one. */
const variables = ['https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY'];

/**
 * The proxy for connections to `address`, by HTTPS_PROXY or ALL_PROXY, unless it is this very machine or NO_PROXY
 * lists it: by name, `.suffix`, IP address, CIDR range, each with `:port` or without, or `*`. Throws ERR_CONFIG_USAGE
 * or ERR_NETWORK_PROXY for a proxy that cannot be used. The value itself is in no message: it may hold a password.
 */
export function proxyFor({ host, port }: RelayAddress): Proxy | undefined {
  const exempt = process.env[firstSet(['no_proxy', 'NO_PROXY']) ?? ''] ?? '';
  if (isLoopback(host) || isListedAddress(exempt, host, port)) return undefined;
  // Asked for https, whatever is spoken inside: for wss it would look for WSS_PROXY.
  const chosen = getProxyForUrl(`https://${showAddress({ host, port })}`);
  if (chosen === '') return undefined;
  const variable = firstSet(variables) ?? 'HTTPS_PROXY';
  const hasScheme = (process.env[variable] ?? '').includes('://');
  const { url, authorization } = parseProxy(
    hasScheme ? chosen : chosen.replace(/^https:/, 'http:'),
    variable,
  );
  return {
    url,
    name: `${url.protocol}//${showAddress(addressOf(url.href))}`,
    variable,
    authorization,
  };
}

/** The proxy on the way to a relay, as `scheme://host:port (VARIABLE)` and without any password; null for none. */
export function describeProxy(relayUrl: string): string | null {
  try {
    const proxy = proxyFor(connectAddress(relayUrl));
    return proxy ? `${proxy.name} (${proxy.variable})` : null;
  } catch {
    return null; // whoever dials says what is wrong with it
  }
}

/** The first of these variables that is set and not empty. */
function firstSet(names: readonly string[]): string | undefined {
  return names.find((name) => (process.env[name] ?? '') !== '');
}

function parseProxy(text: string, variable: string): Pick<Proxy, 'url' | 'authorization'> {
  const url = URL.parse(text);
  if (!url || url.hostname === '') throw unusable(variable, 'is not the URL of a proxy');
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new ZtnaError('ERR_NETWORK_PROXY', {
      message: `${variable} names a proxy of a kind that is not supported (${url.protocol.slice(0, 20)})`,
      hint: 'set HTTPS_PROXY to an HTTP proxy, or list the relay’s host in NO_PROXY to go without one',
      hop: 'network',
      reason: 'proxy_scheme',
    });
  }
  const { username, password } = url;
  url.username = '';
  url.password = '';
  if (username === '' && password === '') return { url, authorization: undefined };
  try {
    const text = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return { url, authorization: `Basic ${Buffer.from(text).toString('base64')}` };
  } catch {
    throw unusable(variable, 'holds a user name or password with a bare %');
  }
}

function unusable(variable: string, what: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', {
    message: `${variable} ${what}`,
    hint: `write ${variable}=http://[USER:PASSWORD@]HOST:PORT, special characters of the password percent-encoded`,
    hop: 'client',
    reason: 'proxy_url',
  });
}
