import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import { servedKeys, type KeyFinder } from '../../signals/keys.ts';
import { checkUrl, fetchOutside } from '../../signals/outside-fetch.ts';
import type { TokenSettings } from './credential.ts';

/** What issuers say of themselves is asked for again after so long. */
const metadataKeptMs = 600_000;
/** After a failure nobody is asked for so long. */
const failurePauseMs = 2_000;
/** Issuers remembered at once; there are hardly more than a few. */
const maxIssuers = 256;

const metadata = v.looseObject({
  issuer: v.string(),
  jwks_uri: v.pipe(v.string(), v.maxLength(2_048)),
});

interface Entry {
  readonly keys: Promise<KeyFinder>;
  untilMs: number;
}

const known = new Map<string, Entry>();

/**
 * The keys of an issuer: where it is said, else where the issuer itself says (OpenID Connect Discovery). Throws
 * ERR_RELAY_UNAVAILABLE while it cannot be asked, ERR_CONFIG_INVALID (`issuer_wrong`, `issuer_metadata`).
 */
export function issuerKeys(settings: TokenSettings): Promise<KeyFinder> {
  const { issuer, jwks, allowPrivate, ca } = settings;
  const key = JSON.stringify([issuer, jwks, allowPrivate, ca]);
  const nowMs = performance.now();
  const found = known.get(key);
  if (found && nowMs < found.untilMs) return found.keys;
  const entry: Entry = { keys: openKeys(settings), untilMs: nowMs + metadataKeptMs };
  entry.keys.catch(() => {
    entry.untilMs = performance.now() + failurePauseMs;
  });
  known.delete(key);
  known.set(key, entry);
  const oldest = known.keys().next();
  if (known.size > maxIssuers && !oldest.done) known.delete(oldest.value);
  return entry.keys;
}

async function openKeys(settings: TokenSettings): Promise<KeyFinder> {
  const { issuer, jwks, allowPrivate, ca } = settings;
  if (jwks !== null) return servedKeys({ url: jwks, allowPrivate, ca });
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const headers = { accept: 'application/json' };
  const { status, text } = await fetchOutside({ url, method: 'GET', headers, allowPrivate, ca });
  if (status !== 200) {
    throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
      message: `${checkUrl(url).host} answered with status ${status}`,
      reason: 'issuer_unavailable',
    });
  }
  const said = v.safeParse(metadata, parse(text));
  if (!said.success) throw unfit(`${url} does not describe an issuer`, 'issuer_metadata');
  if (said.output.issuer !== issuer) throw unfit(`${url} is of another issuer`, 'issuer_wrong');
  return servedKeys({ url: said.output.jwks_uri, allowPrivate, ca });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unfit(message: string, reason: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', { message, reason });
}
