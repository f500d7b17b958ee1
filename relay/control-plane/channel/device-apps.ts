import { setImmediate } from 'node:timers/promises';
import { ZtnaError, type AppRow, type ToDevice } from '../../../protocol/index.ts';
import { isAppOnline } from '../grant/choose-connector.ts';
import {
  decideAccess,
  recordDecision,
  recordUnknownApp,
  toPolicyRequest,
} from '../grant/decide.ts';
import { disqualificationOf, readApp, readApps, readSubject } from '../grant/facts.ts';
import { compliance, remedyOf } from '../grant/remedy.ts';
import type { DevicePeer } from '../live/peers.ts';
import { explainDecision, postureNeedsOf } from '../policy/index.ts';
import type { Services } from '../services.ts';
import { needSession } from './device-session.ts';
import { tellUser, toWire } from './why-answer.ts';

type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/** How long the event loop is kept at one list of apps. */
const sliceMs = 10;

/** As many facts as one answer tells of. */
const maxNeeds = 1_024;

/** What the user may reach, or could by a remedy of his or her own; nothing else shows. */
export async function listApps(services: Services, peer: DevicePeer): Promise<AppRow[]> {
  const subject = await needSubject(services, peer);
  const rows: AppRow[] = [];
  let sinceMs = performance.now();
  for (const app of await readApps(services.store.db)) {
    if (performance.now() - sinceMs > sliceMs) {
      await setImmediate(); // leases must not wait for a long list
      sinceMs = performance.now();
    }
    const explained = explainDecision(
      services.policy,
      toPolicyRequest(services.policy, subject, app),
    );
    const remedy = remedyOf(explained, subject);
    const fix = remedy?.isUsersOwn === true ? remedy.fix : null;
    if (explained.verdict === 'deny' && fix === null) continue;
    const isOnline = await isAppOnline(services, app.app);
    rows.push({
      name: app.app.name,
      kind: app.app.kind,
      state: explained.verdict === 'deny' ? 'needs_remedy' : isOnline ? 'online' : 'offline',
      fix,
      portHint: app.app.portHint,
    });
  }
  return rows;
}

/** What policies need of this device, for every app that its user has or could have by mending it. */
export async function listNeeds(
  services: Services,
  peer: DevicePeer,
): Promise<Pick<Answer<'posture_needs'>, 'heardAgoMs' | 'needs'>> {
  const subject = await needSubject(services, peer);
  const { policy, clock } = services;
  const needs: Answer<'posture_needs'>['needs'] = [];
  let sinceMs = performance.now();
  for (const app of await readApps(services.store.db)) {
    if (performance.now() - sinceMs > sliceMs) {
      await setImmediate();
      sinceMs = performance.now();
    }
    for (const need of postureNeedsOf(policy, toPolicyRequest(policy, subject, app))) {
      const { what, actual, required, met } = need;
      const words = { what: toWire(what, 128), actual: toWire(actual, 128) };
      if (needs.length >= maxNeeds) break;
      needs.push({ app: app.app.name, ...words, required: toWire(required, 128), met });
    }
  }
  const { posture } = subject;
  const isHeard = posture !== null && clock.nowMs() < posture.endMs;
  return { heardAgoMs: isHeard ? Math.max(0, clock.nowMs() - posture.atMs) : null, needs };
}

/**
 * Whether the user may reach one app now, put on record as a decision, and as much of the reason as is the user's
 * business.
 */
export async function handleWhy(
  services: Services,
  peer: DevicePeer,
  id: number,
  appName: string,
): Promise<Answer<'why'>> {
  const { store } = services;
  const subject = await needSubject(services, peer);
  const app = await readApp(store.db, { name: appName });
  const { policy } = services; // after the waiting: another may have become active
  const request = app && toPolicyRequest(policy, subject, app);
  const explained = request && explainDecision(policy, request);
  const remedy = explained ? remedyOf(explained, subject) : null;
  const fix = remedy?.isUsersOwn === true ? remedy.fix : null;
  const decision = await store.write((tx) =>
    app
      ? recordDecision(tx, decideAccess(policy, subject, app, 0), { subject, app, tunnel: null })
      : recordUnknownApp(tx, subject, appName, policy.version),
  );
  const isShown = explained !== undefined && (explained.verdict === 'allow' || fix !== null);
  return {
    type: 'why',
    id,
    app: appName,
    allowed: explained?.verdict === 'allow',
    decision,
    ...(request && isShown
      ? tellUser(policy, request, explained, peer.version)
      : { conditions: [] }),
    fix,
  };
}

/**
 * Who asks, with all that policies look at. Throws ERR_IDENTITY_SIGN_IN_NEEDED, and the code of a device that is
 * restricted.
 */
async function needSubject(services: Services, peer: DevicePeer) {
  const session = await needSession(services, peer.id);
  const at = { address: peer.address, nowMs: services.clock.nowMs() };
  const subject = await readSubject(
    services,
    services.store.db,
    { device: peer.id, session: session.id },
    at,
  );
  const stop = subject && disqualificationOf(subject);
  if (stop === 'device_restricted') {
    const { code, reason, message, fix } = compliance;
    throw new ZtnaError(code, { reason, message, hint: fix, hop: 'client' });
  }
  if (!subject || stop !== undefined) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { hint: 'run: ztna login', hop: 'client' });
  }
  return subject;
}
