import {
  RiskProfile,
  type Place,
  type RiskEvent,
} from '../../../../relay/control-plane/risk/index.ts';

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;
export const megabyte = 1_000_000;

/** A Monday, 00:00 UTC. */
export const mondayMs = Date.UTC(2026, 0, 5);

export const berlin: Place = { country: 'DE', network: 3320, latitude: 52.5, longitude: 13.4 };
export const munich: Place = { country: 'DE', network: 6805, latitude: 48.1, longitude: 11.6 };
export const tokyo: Place = { country: 'JP', network: 2497, latitude: 35.7, longitude: 139.7 };

/** An event of ada at her desk in Berlin, with what is told of it. */
export function event(about: Partial<RiskEvent> & { readonly atMs: number }): RiskEvent {
  return {
    kind: 'connect',
    user: 'ada',
    device: 'dev_desk',
    app: 'wiki',
    address: '203.0.113.7',
    place: berlin,
    ...about,
  } as RiskEvent;
}

/** The end of the four weeks of `officeWorker`: a Monday, 00:00. */
export const afterMs = mondayMs + 28 * dayMs;

/**
 * Somebody who for four weeks worked from nine to five: signs in, opens two apps, and takes ten megabytes of wiki an
 * hour.
 */
export function officeWorker(usualBytes = 10 * megabyte): RiskProfile {
  const profile = new RiskProfile();
  for (let day = 0; day < 26; day++) {
    if (day % 7 > 4) continue;
    const morningMs = mondayMs + day * dayMs + 9 * hourMs;
    profile.learn(event({ kind: 'sign_in', atMs: morningMs, app: null }));
    profile.learn(event({ atMs: morningMs + 1, app: 'wiki' }));
    profile.learn(event({ atMs: morningMs + 2, app: 'git' }));
    for (let hour = 0; hour < 8; hour++) {
      const atMs = morningMs + hour * hourMs + 30 * 60_000;
      profile.learn(event({ kind: 'resume', atMs }));
      profile.learn(event({ kind: 'bytes', atMs, bytesOut: usualBytes, spanMs: 60_000 }));
    }
  }
  return profile;
}

/** Points by name. */
export function pointsOf(
  profile: RiskProfile,
  nowMs: number,
  app?: string,
): Record<string, number> {
  const { contributions } = profile.assess(nowMs, app);
  return Object.fromEntries(contributions.map(({ name, points }) => [name, points]));
}
