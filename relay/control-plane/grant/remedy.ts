import type { PolicyExplanation } from '../policy/index.ts';

/**
 * The next step towards an app, if it is the user's own to take. Posture is not collected yet, so what only a
 * healthy device would change is no remedy.
 */
export function fixOf(explained: PolicyExplanation): string | null {
  const { verdict, remedies } = explained;
  if (verdict === 'allow' || remedies.length === 0) return null;
  if (remedies.includes('posture') || remedies.includes('risk')) return null;
  if (remedies.includes('step_up'))
    return 'set up a one-time password: ztna mfa add, then: ztna login';
  return 'sign in again: ztna login';
}
