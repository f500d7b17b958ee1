import { sessionMethods } from '../identity/index.ts';
import { readGroups, readPosture, type SubjectFacts } from './facts.ts';
import type { Services } from '../services.ts';
import type { Device, Reader, Session, User } from '../store/index.ts';

/**
 * What policy would be asked about a user on a device: in the newest session there, or in one that begins now where there is
 * none; without a device, on one of which nothing is known.
 */
export async function likelySubject(
  services: Services,
  db: Reader,
  user: User,
  device: Device | undefined,
): Promise<SubjectFacts> {
  const nowMs = services.clock.nowMs();
  const live =
    device &&
    (await db
      .selectFrom('sessions')
      .selectAll()
      .where('deviceId', '=', device.id)
      .where('endedAtMs', 'is', null)
      .orderBy('createdAtMs', 'desc')
      .executeTakeFirst());
  const session = live ?? freshSession(user, device, nowMs);
  const newest = device && services.peers.devices(device.id).at(-1);
  const address = newest?.address ?? 'unknown';
  const who = { user: user.id, device: device?.id ?? '', session: session.id };
  return {
    user,
    device: device ?? noDevice(user, nowMs),
    session,
    methods: sessionMethods(session),
    groups: await readGroups(db, user.id, nowMs),
    posture: device ? await readPosture(services.postures, db, device.id, nowMs) : null,
    riskOf: await services.risk.read(db, who, nowMs),
    country: services.risk.countryOf(address),
    address,
    nowMs,
  };
}

function freshSession(user: User, device: Device | undefined, nowMs: number): Session {
  return {
    id: 'none' as Session['id'],
    userId: user.id,
    deviceId: device?.id ?? ('none' as Device['id']),
    provider: 'local',
    methodsJson: '["password"]',
    authenticatedAtMs: nowMs,
    createdAtMs: nowMs,
    lastSeenAtMs: nowMs,
    idleMs: 3_600_000,
    absoluteEndAtMs: nowMs + 3_600_000,
    endedAtMs: null,
    endReason: null,
    address: '',
    acr: '',
  };
}

function noDevice(user: User, nowMs: number): Device {
  return {
    id: 'none' as Device['id'],
    userId: user.id,
    hostname: 'unknown',
    platform: 'unknown',
    noiseKey: '',
    signingKey: '',
    certificateSerial: null,
    certificateNotAfterMs: null,
    state: 'enrolled',
    createdAtMs: nowMs,
    lastSeenAtMs: null,
    restrictedJson: '[]',
    unhealthy: 0,
  };
}
