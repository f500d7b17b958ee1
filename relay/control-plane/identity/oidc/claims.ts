import { isName } from '../../../../protocol/index.ts';
import { refusal } from './failure.ts';
import type { ProviderSettings } from './settings.ts';

/** What a provider says of a user, in a token that was verified or an answer that it gave us itself. */
export type Claims = Readonly<Record<string, unknown>>;

/** Groups of one user that count, at most. */
const maxGroups = 256;
/** Methods of one sign-in that count, at most. */
const maxMethods = 16;

/** A claim by its whole name, which may be an URL with dots, else by names of nested ones with dots. */
export function readClaim(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let at: unknown = claims;
  for (const word of path.split('.')) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, word)) return undefined;
    at = (at as Claims)[word];
  }
  return at;
}

/**
 * What the user is called here. Throws ERR_IDENTITY_SIGN_IN_REFUSED: `name_missing`, `name_not_usable`,
 * `email_not_verified` where the name is an address that nobody has checked.
 */
export function nameOf(claims: Claims, { userClaim }: ProviderSettings): string {
  const value = readClaim(claims, userClaim);
  if (typeof value !== 'string' || value === '') throw refusal('name_missing');
  if (userClaim === 'email' && isVerified(claims) === false) {
    throw refusal('email_not_verified');
  }
  const name = value.toLowerCase();
  if (!isName(name)) throw refusal('name_not_usable');
  return name;
}

/** Whether somebody checked that the address is the user's; undefined where nobody says. Some providers say it in text. */
function isVerified({ email_verified: said }: Claims): boolean | undefined {
  if (said === true || said === 'true') return true;
  return said === undefined || said === null ? undefined : false;
}

/** Throws ERR_IDENTITY_SIGN_IN_REFUSED (`domain_not_allowed`) unless the user's address was checked, and is of a domain that may. */
export function checkDomain(claims: Claims, { allowedDomains }: ProviderSettings): void {
  if (allowedDomains.length === 0) return;
  const { email } = claims;
  const domain = typeof email === 'string' ? email.slice(email.lastIndexOf('@') + 1) : '';
  const isAllowed = allowedDomains.some((one) => one.toLowerCase() === domain.toLowerCase());
  if (!isAllowed || isVerified(claims) !== true) throw refusal('domain_not_allowed');
}

/**
 * Our groups that the provider has the user in; null where it is not asked. Those that may not be named so here are left out,
 * and with a map those that it does not name. Throws ERR_IDENTITY_SIGN_IN_REFUSED (`groups_left_out`) where the
 * provider says that there are too many to tell.
 */
export function groupsOf(claims: Claims, settings: ProviderSettings): string[] | null {
  const { groupsClaim, groupMap } = settings;
  if (groupsClaim === null) return null;
  const value = readClaim(claims, groupsClaim);
  const elsewhere = claims['_claim_names'];
  if (value === undefined && typeof elsewhere === 'object' && elsewhere !== null) {
    if (Object.hasOwn(elsewhere, groupsClaim)) throw refusal('groups_left_out');
  }
  const named = (Array.isArray(value) ? (value as unknown[]) : [value]).filter(
    (one) => typeof one === 'string',
  );
  const isMapped = Object.keys(groupMap).length > 0;
  const ours = named.flatMap((one) => {
    if (isMapped) return Object.hasOwn(groupMap, one) ? [groupMap[one] ?? ''] : [];
    return [one.replace(/^\//, '').toLowerCase()]; // a path, where groups are nested at the provider
  });
  return [...new Set(ours.filter((one) => isName(one)))].sort().slice(0, maxGroups);
}

/** How the user was signed in, as the provider says, and as its `acr` is known to mean. */
export function methodsOf(claims: Claims, settings: ProviderSettings): string[] {
  const { amr } = claims;
  const said = (Array.isArray(amr) ? (amr as unknown[]) : [])
    .filter((one) => typeof one === 'string')
    .map((one) => one.toLowerCase())
    .filter((one) => /^[a-z0-9_-]{1,16}$/.test(one));
  const acr = acrOf(claims);
  const methods = new Set(said);
  if (settings.mfaAcr.includes(acr)) methods.add('mfa');
  const strong = ['phr', 'phrh', ...settings.phishingResistantAcr];
  if (strong.includes(acr)) methods.add('phr');
  return [...methods].slice(0, maxMethods);
}

export function acrOf({ acr }: Claims): string {
  return typeof acr === 'string' && acr.length <= 256 ? acr : '';
}

/** When the user was signed in at the provider; null where it does not say. */
export function authenticatedAtMs({ auth_time: at }: Claims): number | null {
  return typeof at === 'number' && Number.isFinite(at) && at > 0 ? Math.floor(at) * 1_000 : null;
}
