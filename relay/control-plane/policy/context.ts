import type { CheckResult } from '../../../protocol/index.ts';

/**
 * What a policy may read, in the names that policies use. Posture checks say `on` (healthy), `off` or
 * `unknown`; versions are text and numbers, because Cedar does not order text.
 */
export interface PolicyContext {
  readonly device: {
    readonly id: string;
    readonly platform: string; // linux, darwin, win32
    readonly hostname: string;
    readonly enrolled_days: number;
  };
  readonly posture: PostureFacts;
  readonly authentication: {
    readonly mfa: boolean;
    readonly phishing_resistant: boolean;
    readonly methods: readonly string[]; // password, totp, passkey …, or what a provider says (amr)
    readonly provider: string; // local …
    readonly acr: string; // as a provider says; empty for none
    readonly age_seconds: number;
  };
  readonly network: {
    readonly address: string; // as the relay saw it
    readonly country: string; // two letters, or empty when unknown
  };
  readonly time: TimeFacts;
  readonly risk: {
    readonly score: number; // 0 to 100
    readonly factors: readonly string[];
  };
}

export interface PostureFacts {
  readonly disk_encryption: CheckResult;
  readonly firewall: CheckResult;
  readonly screen_lock: CheckResult;
  readonly antivirus: CheckResult;
  readonly secure_boot: CheckResult;
  readonly patched: CheckResult; // no update waits
  readonly physical: CheckResult; // no virtual machine
  readonly os_version: string;
  readonly os_version_number: number;
  readonly os_build: number;
  readonly client_version: string;
  readonly client_version_number: number;
  readonly age_seconds: number;
  readonly [extraCheck: string]: string | number;
}

export interface TimeFacts {
  readonly epoch_seconds: number;
  readonly date: string; // 2026-11-20
  readonly hour: number; // 0 to 23
  readonly minute: number;
  readonly weekday: number; // 1 is Monday
}

/** Members that change by themselves as time passes, by record; `time` does as a whole. */
export const passingMembers: Readonly<Record<string, readonly string[]>> = {
  authentication: ['age_seconds'],
  posture: ['age_seconds'],
  device: ['enrolled_days'],
  risk: ['score', 'factors'],
};

const extraCheckPattern = /^[a-z][a-z0-9_]{0,31}$/;

/** True when `name` may name a deployment's own posture check. */
export function isExtraCheckName(name: string): boolean {
  return extraCheckPattern.test(name) && !Object.hasOwn(unknownPosture([]), name);
}

/** The posture of a device that said nothing, or nothing recently: no check passes. */
export function unknownPosture(extraChecks: readonly string[]): PostureFacts {
  return {
    disk_encryption: 'unknown',
    firewall: 'unknown',
    screen_lock: 'unknown',
    antivirus: 'unknown',
    secure_boot: 'unknown',
    patched: 'unknown',
    physical: 'unknown',
    os_version: 'unknown',
    os_version_number: 0,
    os_build: 0,
    client_version: 'unknown',
    client_version_number: 0,
    age_seconds: maxSeconds,
    ...Object.fromEntries(extraChecks.map((check) => [check, 'unknown'])),
  };
}

/** An age that no policy accepts. */
const maxSeconds = 1_000_000_000;

/** `14.5.1` as 14005001, so that policies can compare; 0 when it is no version. Parts above 999 count as 999. */
export function versionNumber(version: string): number {
  const [major, minor, patch] = versionParts(version);
  if (major === undefined) return 0;
  const clip = (part: number | undefined) => Math.min(part ?? 0, 999);
  return Math.min(major, 999_999) * 1_000_000 + clip(minor) * 1_000 + clip(patch);
}

/** The third part of a version as it is: `10.0.22631` is build 22631. */
export function versionBuild(version: string): number {
  return versionParts(version)[2] ?? 0;
}

function versionParts(version: string): number[] {
  const text = /^\d{1,9}(?:\.\d{1,9}){0,3}/.exec(version)?.[0];
  return text === undefined ? [] : text.split('.').map(Number);
}

const weekdays = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];
const formats = new Map<string, Intl.DateTimeFormat>();

/** The parts of an instant in a time zone; throws RangeError for a zone nobody knows. */
export function timeFacts(nowMs: number, timeZone = 'UTC'): TimeFacts {
  let format = formats.get(timeZone);
  if (!format) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone,
      hourCycle: 'h23',
      weekday: 'short',
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      minute: '2-digit',
    });
    formats.set(timeZone, format);
  }
  const parts = Object.fromEntries(
    format.formatToParts(nowMs).map((part) => [part.type, part.value]),
  );
  return {
    epoch_seconds: Math.floor(nowMs / 1000),
    date: `${parts['year'] ?? ''}-${parts['month'] ?? ''}-${parts['day'] ?? ''}`,
    hour: Number(parts['hour']),
    minute: Number(parts['minute']),
    weekday: weekdays.indexOf(parts['weekday'] ?? '') + 1,
  };
}
