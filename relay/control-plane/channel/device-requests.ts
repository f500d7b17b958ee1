import { setImmediate } from 'node:timers/promises';
import {
  ZtnaError,
  type AppRow,
  type DeviceId,
  type SessionFacts,
  type SessionId,
  type ToDevice,
} from '../../../protocol/index.ts';
import { endTunnels, revokeSubject } from '../access/end-tunnels.ts';
import { suspendSession } from '../access/suspend-tunnels.ts';
import { isAppOnline } from '../grant/choose-connector.ts';
import {
  decideAccess,
  recordDecision,
  recordUnknownApp,
  toPolicyRequest,
} from '../grant/decide.ts';
import { disqualificationOf, readApp, readApps, readSubject } from '../grant/facts.ts';
import { grantTunnel } from '../grant/grant.ts';
import { resumableVersion, resumeTunnel } from '../grant/resume.ts';
import type { PathPermit } from '../grant/permit.ts';
import {
  beginTotp,
  confirmTotp,
  endSessions,
  findLiveSession,
  hasTotp,
  removeTotp,
  sessionEndMs,
  sessionMethods,
  signIn,
  startSession,
  useTotp,
} from '../identity/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { DevicePeer } from '../live/peers.ts';
import { compliance, remedyOf } from '../grant/remedy.ts';
import { explainDecision, postureNeedsOf } from '../policy/index.ts';
import { tellUser, toWire } from './why-answer.ts';
import type { Services } from '../services.ts';
import type { Session, Tx, User } from '../store/index.ts';
import { verifyDevice } from './device-posture.ts';
import type { DeviceRequest } from './device-channel.ts';

/** How long the event loop is kept at one list of apps. */
const sliceMs = 10;

type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/** Carries out one request of a device. Throws what it is refused with. */
export async function answerDevice(
  services: Services,
  peer: DevicePeer,
  dialler: ControlPeer,
  request: DeviceRequest,
): Promise<ToDevice> {
  const { id } = request;
  // Whoever lost a relay asks for many paths at once.
  const isResume = request.type === 'path' && request.tunnel !== null;
  takeTurn(isResume ? services.resumeThrottle : services.requestThrottle, services, peer);
  switch (request.type) {
    case 'sign_in':
      return { type: 'signed_in', id, session: await handleSignIn(services, peer, request) };
    case 'sign_out':
      await handleSignOut(services, peer);
      return { type: 'done', id };
    case 'status':
      return handleStatus(services, peer, dialler, id);
    case 'apps':
      takeTurn(services.questionThrottle, services, peer);
      return { type: 'apps', id, apps: await listApps(services, peer) };
    case 'grant': {
      takeTurn(services.grantThrottle, services, peer);
      const session = await needSession(services, peer.id);
      const asker = { device: peer.id, address: peer.address, version: peer.version };
      const wanted = { session: session.id, app: request.app, avoid: [] };
      const { relays, ...permit } = await grantTunnel(services, asker, wanted);
      const named = relays.map((relay) => ({ id: relay.id, url: relay.url }));
      return { type: 'permit', id, ...permit, relays: named };
    }
    case 'path':
      return { type: 'path_permit', id, ...(await findPath(services, peer, request)) };
    case 'why':
      takeTurn(services.questionThrottle, services, peer);
      return handleWhy(services, peer, id, request.app);
    case 'posture_needs':
      takeTurn(services.questionThrottle, services, peer);
      return { type: 'posture_needs', id, ...(await listNeeds(services, peer)) };
    case 'otp_begin':
      return handleOtpBegin(services, peer, id);
    case 'otp_confirm':
      return changeOtp(services, peer, id, 'otp.confirm', async (tx, user) => {
        await confirmTotp(tx, user.id, request.otp, Date.now());
        return true;
      });
    case 'otp_list': {
      const session = await needSession(services, peer.id);
      return { type: 'otp_state', id, enabled: await hasTotp(services.store.db, session.userId) };
    }
    case 'otp_remove':
      return changeOtp(services, peer, id, 'otp.remove', async (tx, user) => {
        await useTotp(tx, user.id, request.otp, Date.now());
        await removeTotp(tx, user.id);
        return false;
      });
  }
}

/** A path for a new tunnel or for one that is there. */
async function findPath(
  services: Services,
  peer: DevicePeer,
  request: Extract<DeviceRequest, { type: 'path' }>,
): Promise<PathPermit> {
  if (peer.version < resumableVersion) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
  const asker = { device: peer.id, address: peer.address, version: peer.version };
  const { tunnel, app, avoid } = request;
  if (tunnel !== null) return resumeTunnel(services, asker, { tunnel, app, avoid });
  takeTurn(services.grantThrottle, services, peer);
  const session = await needSession(services, peer.id);
  return grantTunnel(services, asker, { session: session.id, app, avoid });
}

/** Throws ERR_LIMIT_RATE when the device has asked too often. */
function takeTurn(
  throttle: Services['requestThrottle'],
  { clock }: Services,
  peer: DevicePeer,
): void {
  if (!throttle.take(peer.id, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
}

/** The device's live session. Throws ERR_IDENTITY_SIGN_IN_NEEDED. */
async function needSession(services: Services, device: DeviceId): Promise<Session> {
  const session = await findLiveSession(services.store.db, device, services.clock.nowMs());
  if (!session) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { hint: 'run: ztna login', hop: 'client' });
  }
  return session;
}

export async function sessionFactsOf(services: Services, session: Session): Promise<SessionFacts> {
  const user = await services.store.db
    .selectFrom('users')
    .select('name')
    .where('id', '=', session.userId)
    .executeTakeFirstOrThrow();
  return {
    session: session.id,
    user: user.name,
    methods: sessionMethods(session),
    signedInAtMs: session.authenticatedAtMs,
    untilMs: sessionEndMs(session),
  };
}

async function handleSignIn(
  services: Services,
  peer: DevicePeer,
  request: Extract<DeviceRequest, { type: 'sign_in' }>,
): Promise<SessionFacts> {
  const { store, clock, audit, settings, signInThrottle: throttle } = services;
  const actor = `device:${peer.id}`;
  try {
    const owner = await store.db
      .selectFrom('devices')
      .select('userId')
      .where('id', '=', peer.id)
      .executeTakeFirst();
    const { user, methods } = await signIn(
      { store, throttle, clock },
      { ...request, device: peer.id, owner: owner?.userId ?? null, address: peer.address },
    );
    const session = await store.write(async (tx) => {
      const device = await tx
        .selectFrom('devices')
        .select(['userId', 'state'])
        .where('id', '=', peer.id)
        .executeTakeFirst();
      // A device is its user's own: another's password on it is no better than a wrong one.
      if (device?.userId !== user.id || device.state !== 'enrolled') {
        throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'device_not_of_user' });
      }
      const started = await startSession(tx, {
        userId: user.id,
        deviceId: peer.id,
        provider: 'local',
        methods,
        limits: settings.session,
        notAfterMs: user.expiresAtMs,
        nowMs: clock.nowMs(),
      });
      for (const replaced of started.replaced) {
        await holdUntilDecided(services, tx, replaced);
      }
      await audit.append(
        {
          actor,
          action: 'session.sign_in',
          subject: started.session.id,
          outcome: 'ok',
          user: user.name,
          details: { methods, address: peer.address },
        },
        tx,
      );
      return started.session;
    });
    const { address } = peer;
    services.risk.note({ kind: 'sign_in', user: user.id, device: peer.id, app: null, address });
    verifyDevice(services, peer.id);
    return await sessionFactsOf(services, session);
  } catch (error) {
    if (error instanceof ZtnaError) {
      await noteRefusedSignIn(services, peer, request.user, error);
      await audit.append({
        actor,
        action: 'session.sign_in',
        subject: peer.id,
        outcome: 'refused',
        user: request.user,
        details: { code: error.code, reason: error.reason ?? null, address: peer.address },
      });
    }
    throw error;
  }
}

/** To be asked for a one-time password is a step of signing in, and nobody's behaviour. */
async function noteRefusedSignIn(
  { store, risk }: Services,
  { id, address }: DevicePeer,
  name: string,
  { code }: ZtnaError,
): Promise<void> {
  if (code === 'ERR_IDENTITY_OTP_NEEDED') return;
  const user = await store.db
    .selectFrom('users')
    .select('id')
    .where('name', '=', name)
    .executeTakeFirst();
  if (user) risk.note({ kind: 'sign_in_refused', user: user.id, device: id, app: null, address });
}

/** Tunnels of the session before go on under the new one as soon as they are decided on with it. */
async function holdUntilDecided(services: Services, tx: Tx, session: SessionId): Promise<void> {
  const reason = 'signed_in_again';
  const by = { reason, fix: 'nothing to do: it goes on in a moment' };
  const others = await suspendSession(services, tx, session, by);
  await endTunnels(services, tx, others, { reason, code: 'ERR_TUNNEL_REVOKED' });
}

async function handleSignOut(services: Services, peer: DevicePeer): Promise<void> {
  const { store, clock, audit } = services;
  await store.write(async (tx) => {
    const ended = await endSessions(tx, { deviceId: peer.id }, 'signed_out', clock.nowMs());
    for (const session of ended) {
      await revokeSubject(services, tx, { kind: 'session', id: session }, 'signed_out');
      await audit.append(
        {
          actor: `device:${peer.id}`,
          action: 'session.sign_out',
          subject: session,
          outcome: 'ok',
        },
        tx,
      );
    }
  });
}

async function handleStatus(
  services: Services,
  peer: DevicePeer,
  dialler: ControlPeer,
  id: number,
): Promise<Answer<'status'>> {
  const { store, clock } = services;
  const session = await findLiveSession(store.db, peer.id, clock.nowMs());
  const device = await store.db
    .selectFrom('devices')
    .select('hostname')
    .where('id', '=', peer.id)
    .executeTakeFirstOrThrow();
  return {
    type: 'status',
    id,
    session: session ? await sessionFactsOf(services, session) : null,
    device: {
      id: peer.id,
      hostname: device.hostname,
      certificateUntilMs: dialler.certificateUntilMs,
    },
  };
}

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

/** What the user may reach, or could by a remedy of his or her own; nothing else shows. */
async function listApps(services: Services, peer: DevicePeer): Promise<AppRow[]> {
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

/** As many facts as one answer tells of. */
const maxNeeds = 1_024;

/** What policies need of this device, for every app that its user has or could have by mending it. */
async function listNeeds(
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

async function handleWhy(
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

async function handleOtpBegin(
  services: Services,
  peer: DevicePeer,
  id: number,
): Promise<Answer<'otp_secret'>> {
  const { store, audit } = services;
  const session = await needSession(services, peer.id);
  const uri = await store.write(async (tx) => {
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', session.userId)
      .executeTakeFirstOrThrow();
    const secret = await beginTotp(tx, user, Date.now());
    await audit.append(
      {
        actor: `device:${peer.id}`,
        action: 'otp.begin',
        subject: user.id,
        outcome: 'ok',
        user: user.name,
      },
      tx,
    );
    return secret;
  });
  return { type: 'otp_secret', id, uri };
}

async function changeOtp(
  services: Services,
  peer: DevicePeer,
  id: number,
  action: string,
  change: (tx: Tx, user: User) => Promise<boolean>,
): Promise<Answer<'otp_state'>> {
  const { store, audit, clock, otpThrottle } = services;
  const session = await needSession(services, peer.id);
  if (!otpThrottle.take(session.userId, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
  const enabled = await store.write(async (tx) => {
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', session.userId)
      .executeTakeFirstOrThrow();
    const result = await change(tx, user);
    await audit.append(
      {
        actor: `device:${peer.id}`,
        action,
        subject: user.id,
        outcome: 'ok',
        user: user.name,
      },
      tx,
    );
    return result;
  });
  return { type: 'otp_state', id, enabled };
}
