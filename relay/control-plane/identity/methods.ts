/**
 * What methods of authentication amount to. Ours are `password`, `totp`, `recovery`, `passkey`, and of services `key` and
 * `token`; providers say those of RFC 8176 (`pwd`, `otp`, `mfa`, `hwk` …), and where they say it by their `acr` alone, `mfa`
 * and `phr` were added.
 */

const phishingResistant: readonly string[] = ['passkey', 'hwk', 'phr', 'phrh'];
const secondFactors: readonly string[] = ['totp', 'otp', 'recovery', 'sms', 'tel'];
const firstFactors: readonly string[] = ['password', 'pwd'];

/** True for a sign-in that a page which only looks like the right one could not have got hold of. */
export function isPhishingResistant(methods: readonly string[]): boolean {
  return methods.some((method) => phishingResistant.includes(method));
}

/** True when more than one thing was proved: knowledge and possession, or a passkey that asked for its user. */
export function isMultiFactor(methods: readonly string[]): boolean {
  if (methods.includes('mfa') || isPhishingResistant(methods)) return true;
  const has = (some: readonly string[]) => methods.some((method) => some.includes(method));
  return has(firstFactors) && has(secondFactors);
}
