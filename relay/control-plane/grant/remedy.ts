import type { ErrorCode } from '../../../protocol/index.ts';
import type { ExplainedCondition, PolicyExplanation } from '../policy/index.ts';
import type { SubjectFacts } from './facts.ts';

/** What stands between a user and an app that he or she could still have. */
export interface Remedy {
  /** What a new connection is refused with. */
  readonly code: ErrorCode;
  /** Why a live tunnel is held back, in a word. */
  readonly reason:
    | 'posture_unhealthy'
    | 'posture_stale'
    | 'step_up_needed'
    | 'passkey_needed'
    | 'sign_in_needed'
    | 'risk_high'
    | 'device_restricted';
  /** What is wrong, for the person. */
  readonly message: string;
  /** The next step. */
  readonly fix: string;
  /** False where all that helps is to wait or to ask: an app that was never reached is then not told of. */
  readonly isUsersOwn: boolean;
}

/**
 * The smallest change that turns a denial into an allow, in words; null when nothing within reach does. Of a device that
 * says nothing, or nothing lately, it names the silence: nobody knows how its checks stand.
 */
export function remedyOf(
  { verdict, remedies, conditions }: PolicyExplanation,
  about: Pick<SubjectFacts, 'posture' | 'nowMs' | 'session'>,
): Remedy | null {
  if (verdict === 'allow' || remedies.length === 0) return null;
  // Nobody is there who could bring another factor.
  if (about.session.provider === 'service' && remedies.includes('step_up')) return null;
  const isUsersOwn = !remedies.includes('risk');
  const steps: string[] = [];
  const isPasskey = conditions.some(({ what }) => what === 'authentication.phishing_resistant');
  if (remedies.includes('step_up')) steps.push(stepUpFix(isPasskey, about.session.provider));
  else if (remedies.includes('sign_in')) steps.push('sign in again: ztna login');
  const facts = conditions.filter(({ what }) => what.startsWith('posture.'));
  const silence = silenceOf(about);
  if (remedies.includes('posture')) {
    steps.push(...(silence === null ? postureSteps(facts) : [silence]), 'see: ztna posture');
  }
  if (!isUsersOwn) steps.push('wait for the risk score to fall, or ask your administrator');
  const fix = steps.join('; ').slice(0, 500);
  if (remedies.includes('posture') && silence !== null) {
    const message = 'nothing recent is known of this device';
    const code = 'ERR_POSTURE_UNHEALTHY';
    return { code, reason: 'posture_stale', message, fix, isUsersOwn };
  }
  if (remedies.includes('posture')) {
    const message = facts.map(toWords).join(', ') || 'this device does not meet the policy';
    const code = 'ERR_POSTURE_UNHEALTHY';
    return { code, reason: 'posture_unhealthy', message, fix, isUsersOwn };
  }
  if (remedies.includes('step_up')) {
    const message = isPasskey ? 'a passkey is needed' : 'a second factor is needed';
    const code = 'ERR_IDENTITY_OTP_NEEDED';
    const reason = isPasskey ? 'passkey_needed' : 'step_up_needed';
    return { code, reason, message, fix, isUsersOwn };
  }
  if (remedies.includes('sign_in')) {
    const message = 'a fresh sign-in is needed';
    const code = 'ERR_IDENTITY_SIGN_IN_NEEDED';
    return { code, reason: 'sign_in_needed', message, fix, isUsersOwn };
  }
  const message = 'the risk score is too high';
  return { code: 'ERR_POLICY_DENIED', reason: 'risk_high', message, fix, isUsersOwn };
}

/** How to sign in with more: factors are set up where the user's password is, here or at a provider. */
function stepUpFix(isPasskey: boolean, provider: string): string {
  if (provider !== 'local') {
    const what = isPasskey ? 'a passkey or security key' : 'a second factor';
    return `sign in with ${what} at ${provider}: ztna login --provider ${provider}`;
  }
  return isPasskey
    ? 'sign in with a passkey: ztna login --browser (add one with: ztna mfa add --passkey)'
    : 'sign in with a one-time password: ztna login (set one up with: ztna mfa add)';
}

/** What to do about a device that says nothing of itself; null for one that does. */
function silenceOf({ posture, nowMs }: Pick<SubjectFacts, 'posture' | 'nowMs'>): string | null {
  if (posture && nowMs < posture.endMs) return null;
  const ask = 'is ztna running, and this machine awake?';
  if (!posture) return `the device has not reported yet: ${ask}`;
  const seconds = Math.floor((nowMs - posture.atMs) / 1_000);
  return `the device has not reported for ${String(seconds)} s: ${ask}`;
}

/** Whoever manages the devices says that this one is not as it has to be. */
export const compliance: Remedy = {
  code: 'ERR_POSTURE_UNHEALTHY',
  reason: 'device_restricted',
  message: 'your device management says that this device is not compliant',
  fix: 'bring it back into compliance there, or ask your administrator',
  isUsersOwn: true,
};

const names: Readonly<Record<string, readonly [name: string, step: string]>> = {
  disk_encryption: ['disk encryption', 'turn on disk encryption'],
  firewall: ['the firewall', 'turn on the firewall'],
  screen_lock: ['the screen lock', 'turn on the screen lock'],
  antivirus: ['antivirus', 'start the antivirus or endpoint protection'],
  secure_boot: ['secure boot', 'turn on secure boot'],
  patched: ['installing updates', 'install the waiting updates and restart'],
  physical: ['a physical machine', 'use a physical machine'],
  os_version: ['the operating system', 'update the operating system'],
  client_version: ['ztna', 'update ztna'],
};

/** `posture.os_version_number` as `os_version`. */
function factOf(condition: ExplainedCondition): string {
  const fact = condition.what.slice('posture.'.length);
  return fact === 'os_build' ? 'os_version' : fact.replace(/_number$/, '');
}

function postureSteps(facts: readonly ExplainedCondition[]): string[] {
  const steps = facts.map((condition) => {
    const fact = factOf(condition);
    if (fact === 'age_seconds') return 'keep this machine awake while it is connected';
    return names[fact]?.[1] ?? `have the check ${fact} pass`;
  });
  return [...new Set(steps)];
}

/** `disk encryption is off`. */
function toWords(condition: ExplainedCondition): string {
  const fact = factOf(condition);
  if (fact === 'age_seconds') return 'this device has said nothing of itself for too long';
  const name = names[fact]?.[0] ?? fact.replaceAll('_', ' ');
  return condition.required === 'newer' ? `${name} is too old` : `${name} is ${condition.actual}`;
}
