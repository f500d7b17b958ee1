import type { SignalEvent } from './event.ts';

/**
 * What an event does. Each either takes something away or takes back what its own transmitter added; nothing here can
 * give what was not there without any event.
 */
export type SignalEffect =
  | { readonly kind: 'none'; readonly why: string }
  | { readonly kind: 'stream_verified'; readonly state: string | null }
  | { readonly kind: 'stream_updated'; readonly status: string }
  /** Sessions end, tunnels close. */
  | { readonly kind: 'end_sessions' }
  /** Sessions count no more; the user may mend it by signing in. */
  | { readonly kind: 'sign_in_again' }
  /** The second factor counts no more; the user may mend it by giving it again. */
  | { readonly kind: 'step_up' }
  | { readonly kind: 'restrict_device' }
  | { readonly kind: 'lift_device' }
  | { readonly kind: 'add_risk'; readonly points: number; readonly of: RiskOf }
  | { readonly kind: 'remove_risk'; readonly of: RiskOf }
  | { readonly kind: 'disable_user' };

export type RiskOf = 'user' | 'device' | 'session';

/** What a level of risk adds to the score, of 100. */
export const riskPoints = { HIGH: 80, MEDIUM: 40 } as const;

/** What `event` does to whom it is about. Pure; whatever is not understood does nothing. */
export function effectOf(event: SignalEvent): SignalEffect {
  const { facts } = event;
  switch (event.type) {
    case 'session-revoked':
    case 'sessions-revoked':
    case 'credential-compromise':
      return { kind: 'end_sessions' };
    case 'token-claims-change':
    case 'account-credential-change-required':
      return { kind: 'sign_in_again' };
    case 'credential-change':
      return facts['change_type'] === 'create'
        ? { kind: 'none', why: 'credential_added' }
        : { kind: 'sign_in_again' };
    case 'assurance-level-change':
      return isLower(facts) ? { kind: 'step_up' } : { kind: 'none', why: 'assurance_not_lower' };
    case 'device-compliance-change':
      return { kind: facts['current_status'] === 'compliant' ? 'lift_device' : 'restrict_device' };
    case 'risk-level-change':
      return riskOf(facts);
    case 'account-disabled':
    case 'account-purged':
      return { kind: 'disable_user' };
    case 'account-enabled':
      return { kind: 'none', why: 'an_administrator_enables' };
    case 'verification':
      return {
        kind: 'stream_verified',
        state: typeof facts['state'] === 'string' ? facts['state'] : null,
      };
    case 'stream-updated':
      return { kind: 'stream_updated', status: String(facts['status']).slice(0, 32) };
    case 'unknown':
      return { kind: 'none', why: 'event_unknown' };
    default:
      return { kind: 'none', why: 'noted' };
  }
}

/** Levels of the namespaces that have an order, lowest first. */
const orders: readonly (readonly string[])[] = [
  ['nist-aal1', 'nist-aal2', 'nist-aal3'],
  ['nist-ial1', 'nist-ial2', 'nist-ial3'],
  ['nist-fal1', 'nist-fal2', 'nist-fal3'],
  ['loa1', 'loa2', 'loa3', 'loa4'],
];

/** True unless it is certain that the level did not fall. */
function isLower(facts: SignalEvent['facts']): boolean {
  const rank = (level: unknown) => {
    const name = String(level).toLowerCase();
    const order = orders.find((levels) => levels.includes(name));
    return order && { order, at: order.indexOf(name) };
  };
  const current = rank(facts['current_level']);
  const previous = rank(facts['previous_level']);
  const isKnown = current !== undefined && current.order === previous?.order;
  if (isKnown && current.at < previous.at) return true;
  if (facts['change_direction'] !== undefined) return facts['change_direction'] !== 'increase';
  return !isKnown;
}

function riskOf(facts: SignalEvent['facts']): SignalEffect {
  const of = { USER: 'user', DEVICE: 'device', SESSION: 'session' }[
    String(facts['principal']).toUpperCase()
  ] as RiskOf | undefined;
  if (of === undefined) return { kind: 'none', why: 'principal_not_ours' };
  const level = facts['current_level'];
  if (level === 'LOW') return { kind: 'remove_risk', of };
  return { kind: 'add_risk', of, points: level === 'MEDIUM' ? riskPoints.MEDIUM : riskPoints.HIGH };
}
