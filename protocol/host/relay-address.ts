import { ZtnaError } from '../errors.ts';

/** Where a relay is dialled. */
export interface RelayAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * A name with several addresses is tried one after the other, IPv6 and IPv4 in turn (happy eyeballs). An address gets
 * so long: enough for a slow link, little enough when one family leads nowhere. Names are looked up at every dial.
 */
export const familyOptions = {
  autoSelectFamily: true,
  autoSelectFamilyAttemptTimeout: 500,
} as const;

const variable = 'ZTNA_RELAY_ADDRESS';

/** Host without brackets, and port, of an `https:`, `wss:` or `http:` URL. */
export function addressOf(url: string): RelayAddress {
  const { protocol, hostname, port } = new URL(url);
  const standardPort = protocol === 'http:' ? 80 : 443;
  return {
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? standardPort : Number(port),
  };
}

/**
 * Where to connect: the URL's own host and port, unless `ZTNA_RELAY_ADDRESS` names another way there, such as a
 * forwarder or an address that DNS does not know. Names and certificates are checked against the URL all the same.
 * Throws ERR_CONFIG_USAGE.
 */
export function connectAddress(url: string): RelayAddress {
  const override = process.env[variable];
  if (override === undefined || override === '') return addressOf(url);
  const address = parseAddress(override);
  if (address) return address;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `${variable} must have the form ADDRESS:PORT`,
    hop: 'client',
  });
}

function parseAddress(text: string): RelayAddress | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) return undefined;
  return { host: bracketed ?? plain ?? '', port: Number(port) };
}

/** Host and address that are dialled for `url`, for people: with where it comes from, when not from the URL. */
export function describeAddress(url: string): { readonly host: string; readonly address: string } {
  const own = addressOf(url);
  const other = parseAddress(process.env[variable] ?? '');
  if (!other) return { host: own.host, address: showAddress(own) };
  return {
    host: other.host,
    address: `${showAddress(other)} (${variable}, in place of ${showAddress(own)})`,
  };
}

/** `host:port`, an IPv6 address in brackets. */
export function showAddress({ host, port }: RelayAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${String(port)}`;
}
