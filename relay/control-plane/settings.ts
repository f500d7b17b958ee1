import type { ExtraCheck } from '../../protocol/index.ts';
import type { PageCertificateFiles } from './listener/page-certificate.ts';
import type { SignalSettings } from '../signal-settings.ts';

/** What of `relay.yaml` the control plane goes by. Durations in milliseconds. */
export interface Settings {
  readonly url: string;
  readonly adminListen: { readonly host: string; readonly port: number } | null;
  readonly maxDevicesPerUser: number;
  /** Who may enrol a machine: with a code alone, or by signing in on a page, at once or once it is approved. */
  readonly enrolmentMode?: EnrolmentMode;
  readonly session: { readonly idleMs: number; readonly absoluteMs: number };
  readonly verification: VerificationSettings;
  /** What devices say of themselves, how old it may be, and what they are asked for beside the usual. */
  readonly posture: { readonly maxAgeMs: number; readonly checks: readonly ExtraCheck[] };
  /** Overrides by app name. */
  readonly apps: Readonly<Record<string, Partial<VerificationSettings>>>;
  /** MaxMind files that say where addresses lie. */
  readonly geo?: { readonly city: string | null; readonly asn: string | null };
  readonly limits: Limits;
  readonly signals?: SignalSettings;
  /** The domain that passkeys are for; null: the host of the url. */
  readonly passkeyDomain?: string | null;
  /** What browsers and other systems are shown. */
  readonly tls?: PageCertificateFiles | null;
}

export type EnrolmentMode = 'invite' | 'sso' | 'sso-approve';

export interface VerificationSettings {
  readonly intervalMs: number;
  readonly holdMs: number;
}

/** What one user, device or stranger may use up. */
export interface Limits {
  readonly tunnelsPerUser: number;
  readonly tunnelsPerDevice: number;
  readonly grantsPerMinute: number;
  readonly resumesPerMinute: number;
  readonly questionsPerMinute: number;
  readonly requestsPerMinute: number;
  readonly enrolmentsPerMinute: number;
  readonly channelsPerDevice: number;
  /** Devices that are being greeted, in all, and how many more may wait for their turn. */
  readonly greetingsAtOnce: number;
  readonly greetingsWaiting: number;
}

/**
 * Of all limits on tunnels these are the lowest, so that people meet the one that is told with a hint. Every command
 * that holds a tunnel holds a channel too, so there are more of those.
 */
export const defaultLimits: Limits = {
  tunnelsPerUser: 256,
  tunnelsPerDevice: 128,
  grantsPerMinute: 240,
  resumesPerMinute: 1_200,
  questionsPerMinute: 60,
  requestsPerMinute: 600,
  enrolmentsPerMinute: 20,
  channelsPerDevice: 192,
  greetingsAtOnce: 16,
  greetingsWaiting: 2_048,
};

/** How often a tunnel to `app` is verified and how long it would be held. */
export function verificationOf(settings: Settings, app: string): VerificationSettings {
  const own = Object.hasOwn(settings.apps, app) ? settings.apps[app] : undefined;
  return { ...settings.verification, ...own };
}
