import { BlockList, isIP, isIPv4 } from 'node:net';
import { ZtnaError } from '../protocol/index.ts';

/** Where an app listens, known to this connector alone. */
export interface Target {
  /** Other kinds are refused when the map is read. */
  readonly kind: 'tcp';
  /** A host name, or an address in its canonical spelling and without brackets. */
  readonly host: string;
  readonly port: number;
}

const laterKinds = ['udp', 'http', 'https'];

/**
 * Reads a target as an operator writes it: `tcp://HOST:PORT`.
 * Throws ERR_CONFIG_INVALID, or ERR_CONFIG_NOT_AVAILABLE for a kind that is not served yet.
 */
export function parseTarget(text: string): Target {
  const parts = /^([a-z]+):\/\/(\[[^\]]*\]|[^:/?#@[\]\s]+):(\d{1,5})$/.exec(text);
  const [, kind, bracketed, portText] = parts ?? [];
  if (!kind || !bracketed || !portText) {
    const laterKind = laterKinds.find((later) => text.startsWith(`${later}://`));
    if (laterKind) throw notAvailable(laterKind);
    throw invalid('a target looks like tcp://HOST:PORT', 'for example tcp://127.0.0.1:5432');
  }
  if (laterKinds.includes(kind)) throw notAvailable(kind);
  if (kind !== 'tcp') {
    throw invalid(
      `"${kind}" is not a kind of target`,
      `did you mean tcp://${bracketed}:${portText}`,
    );
  }
  const port = Number(portText);
  if (port < 1 || port > 65_535 || String(port) !== portText) {
    throw invalid('a port is a number from 1 to 65535', 'for example tcp://127.0.0.1:5432');
  }
  const isBracketed = bracketed.startsWith('[');
  const host = isBracketed ? bracketed.slice(1, -1) : bracketed;
  checkHost(host, isBracketed);
  return { kind, host, port };
}

/** The target as an operator would write it. */
export function formatTarget(target: Target): string {
  return `${target.kind}://${formatHost(target)}:${target.port}`;
}

/** Its host as a URL holds it. */
export function formatHost({ host }: Pick<Target, 'host'>): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** True for two targets that are dialled alike. */
export function isSameTarget(a: Target, b: Target): boolean {
  return a.host === b.host && a.port === b.port;
}

/**
 * Addresses at which clouds hand credentials to whoever asks from that machine. No private app lives there, so
 * neither an entry of the map nor a name that resolves to one is ever dialled.
 */
const metadataAddresses = new BlockList();
for (const address of [
  '169.254.169.254',
  '169.254.170.2',
  '169.254.170.23',
  '100.100.100.200',
  '168.63.129.16',
]) {
  metadataAddresses.addAddress(address, 'ipv4');
}
for (const address of ['fd00:ec2::254', 'fd00:ec2::23', 'fd20:ce::254', '64:ff9b::a9fe:a9fe']) {
  metadataAddresses.addAddress(address, 'ipv6');
}

/** True when an app may be dialled at this numeric address. */
export function isDialable(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return false;
  return !metadataAddresses.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

function checkHost(host: string, isBracketed: boolean): void {
  if (isIP(host) !== 0) {
    if (isIPv4(host) === isBracketed) {
      throw invalid('only an IPv6 address stands in brackets', 'for example tcp://[fd00::1]:5432');
    }
    if (host.includes('%')) throw invalid('an address has no zone here', 'use a global address');
    const canonical = canonicalAddress(host);
    if (canonical !== host) throw invalid('an address has one spelling here', `write ${canonical}`);
    if (/^(0\.0\.0\.0|::)$/.test(host)) {
      throw invalid('this address names no machine', 'write 127.0.0.1 for this machine');
    }
    if (!isDialable(host)) {
      throw invalid('a metadata service is never published', 'name the private app instead');
    }
    return;
  }
  // The resolver reads 127.1, 2130706433, 0x7f.1 and 0177.0.0.1 as addresses; a reviewer of the map would not.
  const lastLabel = host.replace(/\.$/, '').split('.').at(-1) ?? '';
  const isNumeric = /^(\d+|0x[0-9a-f]*)$/i.test(lastLabel);
  if (isNumeric || isBracketed) {
    throw invalid(`"${host}" is not an address in full`, 'write all four parts, as in 127.0.0.1');
  }
  const isHostName =
    host.length <= 253 &&
    /^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}\.?$/i.test(host);
  if (!isHostName) throw invalid(`"${host}" is not a host name`, 'use letters, digits, - and .');
}

function canonicalAddress(address: string): string {
  if (isIPv4(address)) return address;
  const url = new URL(`tcp://[${address}]`);
  const text = url.hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(text);
  if (!mapped) return text;
  const bits = (parseInt(mapped[1] ?? '', 16) << 16) | parseInt(mapped[2] ?? '', 16);
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join('.');
}

function invalid(message: string, hint: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', { message, hint });
}

function notAvailable(kind: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
    message: `not available yet: ${kind} targets`,
    hint: 'publish the app as tcp://HOST:PORT',
  });
}
