import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { EventEmitter, once } from 'node:events';
import type { ClientRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import { ZtnaError, type ErrorDetails } from '../errors.ts';
import { captivePortal, quote } from './network-error.ts';
import type { Proxy } from './proxy.ts';
import { addressOf, familyOptions, showAddress, type RelayAddress } from './relay-address.ts';
import { systemCode } from './state-dir.ts';

/** No proxy of a good mind says more before it has connected us, its own TLS included. */
const maxAnswerBytes = 65_536;

interface ConnectAnswer {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

/**
 * A connection to `target` that `proxy` has made by HTTP CONNECT; nothing has been sent through it. Throws
 * ERR_NETWORK_PROXY, ERR_NETWORK_CAPTIVE_PORTAL, or the reason of `signal` if it is a ZtnaError. A proxy that is
 * spoken to over TLS must show a certificate that this machine's own CAs vouch for.
 */
export async function connectThroughProxy(
  proxy: Proxy,
  target: RelayAddress,
  signal: AbortSignal,
): Promise<Socket> {
  const { HttpsProxyAgent } = await import('https-proxy-agent');
  const request = new EventEmitter();
  const answered = once(request, 'proxyConnect') as Promise<[ConnectAnswer]>;
  const opened: Socket[] = [];
  const onOpened = (message: unknown) => {
    opened.push((message as { readonly socket: Socket }).socket);
  };
  // The agent keeps the socket that it opens to itself until the proxy has answered; its bounds are ours to hold.
  subscribe('net.client.socket', onOpened);
  // Not in the URL, which the agent tells to whoever sets DEBUG.
  const { authorization } = proxy;
  const headers: Record<string, string> =
    authorization === undefined ? {} : { 'Proxy-Authorization': authorization };
  let agent;
  if (proxy.url.protocol === 'https:') {
    const socket = connect({ ...addressOf(proxy.url.href), ...familyOptions });
    agent = new HttpsProxyAgent(proxy.url, { socket, headers });
  } else {
    agent = new HttpsProxyAgent(proxy.url, { ...familyOptions, headers });
  }
  const { host, port } = target;
  const options = { host, port, secureEndpoint: false };
  const connecting = agent.connect(request as unknown as ClientRequest, options);
  unsubscribe('net.client.socket', onOpened);

  // Over TLS the last one is what the answer is read from; the one below must not be read besides.
  const { promise: bounds, stop } = guard(opened.at(-1), signal);
  try {
    const socket = await Promise.race([connecting, bounds]);
    const [answer] = await answered;
    if (answer.statusCode === 200) return socket;
    throw refusal(proxy, target, answer);
  } catch (error) {
    connecting.catch(() => undefined);
    for (const socket of opened) socket.on('error', () => undefined).destroy();
    throw explain(error, proxy, target);
  } finally {
    stop();
  }
}

/** Rejects when the signal aborts or the socket has brought more than an answer may hold. */
function guard(
  socket: Socket | undefined,
  signal: AbortSignal,
): { readonly promise: Promise<never>; readonly stop: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const onAbort = () => {
    reject(signal.reason as Error);
  };
  const onReadable = () => {
    if (!socket || socket.bytesRead <= maxAnswerBytes) return;
    socket.destroy();
    reject(Object.assign(new Error('the answer has no end'), { code: 'ERR_OUT_OF_RANGE' }));
  };
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  socket?.on('readable', onReadable);
  return {
    promise,
    stop: () => {
      signal.removeEventListener('abort', onAbort);
      socket?.off('readable', onReadable);
    },
  };
}

function refusal(proxy: Proxy, target: RelayAddress, answer: ConnectAnswer): ZtnaError {
  const { statusCode, headers } = answer;
  const address = showAddress(target);
  const location = headers['location'];
  if (statusCode === 511 || (statusCode >= 300 && statusCode < 400)) {
    return captivePortal(`${address} at the proxy ${proxy.name}`, [location].flat()[0]);
  }
  const seen = `${describe(proxy)} answered ${Number.isInteger(statusCode) ? statusCode : 'something else than HTTP'}`;
  if (statusCode === 407) {
    const offered = [headers['proxy-authenticate'] ?? []].flat();
    const takesBasic = offered.length === 0 || offered.some((text) => /\bbasic\b/i.test(text));
    const schemes = offered.map((text) => quote(text.split(' ')[0] ?? '')).join(', ');
    const wish =
      proxy.authorization !== undefined
        ? 'it refused that user name and password'
        : 'it wants a user name and password';
    return proxyError('proxy_authentication', {
      message: `${seen}: ${takesBasic ? wish : `it wants ${schemes}, and only Basic is supported`}`,
      hint: `set ${proxy.variable}=${proxy.url.protocol}//USER:PASSWORD@HOST:PORT, special characters percent-encoded`,
    });
  }
  if (statusCode >= 502 && statusCode <= 504) {
    return proxyError('proxy_no_way', {
      message: `${seen}: it could not reach ${address}`,
      hint: `check that the relay runs, and that the proxy may and can reach ${address}`,
    });
  }
  return proxyError('proxy_refused', {
    message: `${seen} for ${address}`,
    hint: `ask for CONNECT to ${address} to be allowed, or go without the proxy: NO_PROXY=${target.host}`,
  });
}

function explain(error: unknown, proxy: Proxy, target: RelayAddress): ZtnaError {
  if (error instanceof ZtnaError) return error;
  const code = systemCode(error);
  const cause = { cause: error };
  const hint = `check ${proxy.variable}, or go without the proxy: NO_PROXY=${target.host}`;
  if (code === 'ETIMEDOUT') {
    return proxyError('proxy_silent', {
      message: `${describe(proxy)} did not answer in time`,
      hint,
      ...cause,
    });
  }
  if (code === 'ERR_OUT_OF_RANGE' || code === undefined) {
    return proxyError('proxy_no_proxy', {
      message: `what answers as ${describe(proxy)} is no HTTP proxy`,
      hint,
      ...cause,
    });
  }
  if (
    proxy.url.protocol === 'https:' &&
    /^(?:ERR_SSL|ERR_TLS|CERT_|SELF_SIGNED|DEPTH_ZERO|UNABLE_TO)/.test(code)
  ) {
    return proxyError('proxy_certificate', {
      message: `${describe(proxy)} did not prove itself (${code})`,
      hint: 'if a CA of your organisation issued its certificate, name it in NODE_EXTRA_CA_CERTS',
      ...cause,
    });
  }
  return proxyError('proxy_unreachable', {
    message: `${describe(proxy)} could not be reached (${code})`,
    hint,
    ...cause,
  });
}

function describe(proxy: Proxy): string {
  return `the proxy ${proxy.name} (${proxy.variable})`;
}

function proxyError(reason: string, details: ErrorDetails): ZtnaError {
  return new ZtnaError('ERR_NETWORK_PROXY', { hop: 'network', reason, ...details });
}
