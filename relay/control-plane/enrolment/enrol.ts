import {
  ZtnaError,
  type EnrolAnswer,
  type EnrolRequest,
  type UserId,
} from '../../../protocol/index.ts';
import { openSession } from '../access/open-session.ts';
import { revokeDevice } from '../access/revoke-device.ts';
import { verifyCertificateRequest } from '../authority/index.ts';
import {
  addConnector,
  addDevice,
  claimInvite,
  findInvite,
  verifyEnrolmentProof,
} from '../devices/index.ts';
import { hasTotp, preparePassword, signIn, startSession } from '../identity/index.ts';
import { maxDevicesPerService, serviceDeviceKeptMs } from '../limits.ts';
import type { Services } from '../services.ts';
import type { Invite, Tx, User } from '../store/index.ts';
import { forgetBrowserSignIn, readBrowserSignIn, type BrowserSignIn } from './browser-sign-in.ts';
import { issueFor } from './certificate.ts';
import { enrolRelay } from './enrol-relay.ts';

/** What the password of an enrolment turned out to be, before the transaction that uses it: hashing is slow. */
type Password =
  | { readonly kind: 'none' }
  | { readonly kind: 'first'; readonly hash: string }
  | { readonly kind: 'right' };

/**
 * Enrols a device, a connector or a data plane by a one-time code. Every check that can fail comes before the code is used up, and
 * code, row, session and certificate stand or fall together.
 * Throws ERR_IDENTITY_CODE_REFUSED, ERR_IDENTITY_CODE_USED, ERR_IDENTITY_KEY_REFUSED, ERR_IDENTITY_PASSWORD_WEAK,
 * ERR_IDENTITY_SIGN_IN_REFUSED, ERR_LIMIT_DEVICES, ERR_CONFIG_EXISTS.
 */
export async function enrolIdentity(
  services: Services,
  request: EnrolRequest,
  address: string,
): Promise<EnrolAnswer> {
  const { store, clock } = services;
  verifyEnrolmentProof(request);
  verifyCertificateRequest(request.certificateRequest);
  const secret = Buffer.from(request.secret, 'base64url');
  const invite = await store.write((tx) => findInvite(tx, secret));
  const browser = invite && readBrowserSignIn(services, invite, request.verifier);
  const password: Password =
    invite?.kind === 'user' && !browser && isOpen(invite, clock.nowMs())
      ? await checkPassword(services, invite, request.password, address)
      : { kind: 'none' };
  return store.write(async (tx) => {
    const claimed = await claimInvite(tx, secret, clock.nowMs());
    switch (claimed.kind) {
      case 'user':
        return enrolDevice(services, tx, claimed, request, { password, browser, address });
      case 'connector':
        return enrolConnector(services, tx, claimed, request, address);
      case 'relay':
        return enrolRelay(services, tx, claimed, request, address);
    }
  });
}

function isOpen(invite: Invite, nowMs: number): boolean {
  return invite.usesLeft > 0 && invite.revoked === 0 && invite.expiresAtMs > nowMs;
}

async function checkPassword(
  services: Services,
  invite: Invite,
  password: string | null,
  address: string,
): Promise<Password> {
  const { store, clock, signInThrottle: throttle } = services;
  const user = await readUser(store.db, invite.subject);
  if (user.provider !== null) return { kind: 'none' }; // who signs in there has no password here
  if (user.kind === 'service') return { kind: 'none' };
  if (user.passwordHash === null) {
    if (password === null) {
      throw new ZtnaError('ERR_IDENTITY_PASSWORD_WEAK', {
        message: 'choose a password to enrol with',
        hint: 'run ztna enroll on a terminal, or with --password-stdin',
      });
    }
    return { kind: 'first', hash: await preparePassword(password, user.name) };
  }
  if (password === null) return { kind: 'none' };
  try {
    await signIn(
      { store, throttle, clock },
      { user: user.name, password, otp: null, device: null, address },
    );
    return { kind: 'right' };
  } catch (error) {
    // The password is right; the second factor is asked for at the first sign-in.
    if (error instanceof ZtnaError && error.code === 'ERR_IDENTITY_OTP_NEEDED')
      return { kind: 'none' };
    throw error;
  }
}

async function readUser(db: Services['store']['db'] | Tx, id: string): Promise<User> {
  const user = await db
    .selectFrom('users')
    .selectAll()
    .where('id', '=', id as UserId)
    .executeTakeFirst();
  if (!user) throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason: 'user_removed' });
  return user;
}

async function enrolDevice(
  services: Services,
  tx: Tx,
  invite: Invite,
  request: EnrolRequest,
  by: {
    readonly password: Password;
    readonly browser: BrowserSignIn | undefined;
    readonly address: string;
  },
): Promise<EnrolAnswer> {
  const { password, browser, address } = by;
  const { authority, clock, settings, audit } = services;
  const nowMs = clock.nowMs();
  const user = await readUser(tx, invite.subject);
  const isActive = user.disabled === 0 && (user.expiresAtMs === null || user.expiresAtMs > nowMs);
  if (!isActive) throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason: 'user_not_active' });
  if (password.kind === 'first') {
    // Two codes of one new user, used at once: one of the passwords wins, the other is not believed unseen.
    const set = await tx
      .updateTable('users')
      .set({ passwordHash: password.hash })
      .where('id', '=', user.id)
      .where('passwordHash', 'is', null)
      .returning('id')
      .executeTakeFirst();
    if (!set)
      throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'password_set_meanwhile' });
  }
  if (user.kind === 'service') await giveUpOldMachines(services, tx, user);
  const device = await addDevice(tx, {
    userId: user.id,
    hostname: request.hostname,
    platform: request.platform,
    signingKey: request.signingKey,
    noiseKey: request.noiseKey,
    state: browser?.isHeld === true ? 'pending' : 'enrolled',
    maxPerUser: user.kind === 'service' ? maxDevicesPerService : settings.maxDevicesPerUser,
    nowMs,
  });
  const holder = { role: 'device', id: device.id, url: settings.url } as const;
  const certificate = await issueFor(authority, clock, holder, request.certificateRequest);
  await tx
    .updateTable('devices')
    .set({
      certificateSerial: certificate.serial,
      certificateNotAfterMs: certificate.notAfterMs,
    })
    .where('id', '=', device.id)
    .execute();
  const isPending = device.state === 'pending';
  const hasPassword = password.kind !== 'none' && !(await hasTotp(tx, user.id));
  const signedIn = hasPassword || (browser !== undefined && !isPending);
  if (hasPassword) {
    await startSession(tx, {
      userId: user.id,
      deviceId: device.id,
      provider: 'local',
      methods: ['password'],
      address,
      limits: settings.session,
      notAfterMs: user.expiresAtMs,
      nowMs,
    });
  }
  await audit.append(
    {
      actor: `user:${user.name}`,
      action: 'device.enrol',
      subject: device.id,
      outcome: 'ok',
      ref: invite.id,
      user: user.name,
      details: {
        hostname: device.hostname,
        platform: device.platform,
        address,
        signedIn,
        ...(isPending ? { pending: true } : {}),
      },
    },
    tx,
  );
  if (browser) await forgetBrowserSignIn(tx, invite);
  if (browser && signedIn) {
    await openSession(services, tx, device.id, browser.proof, address);
    services.store.afterCommit(tx, () => {
      services.risk.note({ kind: 'sign_in', user: user.id, device: device.id, app: null, address });
    });
  }
  return {
    role: 'device',
    id: device.id,
    user: user.name,
    signedIn,
    ...(isPending ? { pending: true as const } : {}),
    certificate: certificate.pem,
    bundle: services.bundle.statement,
  };
}

/** Revokes machines of a service that have not been seen for long: nobody says of a job that it will not come back. */
async function giveUpOldMachines(services: Services, tx: Tx, user: User): Promise<void> {
  const lastMs = services.clock.nowMs() - serviceDeviceKeptMs;
  const old = await tx
    .selectFrom('devices')
    .selectAll()
    .where('userId', '=', user.id)
    .where('state', '!=', 'revoked')
    .where('createdAtMs', '<', lastMs)
    .where((eb) => eb.or([eb('lastSeenAtMs', 'is', null), eb('lastSeenAtMs', '<', lastMs)]))
    .execute();
  for (const row of old) {
    await revokeDevice(services, tx, row, 'service_machine_gone');
    await services.audit.append(
      {
        actor: 'system',
        action: 'device.revoke',
        subject: row.id,
        outcome: 'ok',
        user: user.name,
        details: { reason: 'service_machine_gone', lastSeenAtMs: row.lastSeenAtMs },
      },
      tx,
    );
  }
}

async function enrolConnector(
  services: Services,
  tx: Tx,
  invite: Invite,
  request: EnrolRequest,
  address: string,
): Promise<EnrolAnswer> {
  const { authority, clock, settings, audit } = services;
  if (invite.siteId === null) {
    throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason: 'code_kind' });
  }
  const connector = await addConnector(tx, {
    name: invite.subject,
    siteId: invite.siteId,
    signingKey: request.signingKey,
    noiseKey: request.noiseKey,
    nowMs: clock.nowMs(),
  });
  const holder = { role: 'connector', id: connector.id, url: settings.url } as const;
  const certificate = await issueFor(authority, clock, holder, request.certificateRequest);
  await tx
    .updateTable('connectors')
    .set({
      certificateSerial: certificate.serial,
      certificateNotAfterMs: certificate.notAfterMs,
    })
    .where('id', '=', connector.id)
    .execute();
  await audit.append(
    {
      actor: `connector:${connector.id}`,
      action: 'connector.enrol',
      subject: connector.id,
      outcome: 'ok',
      ref: invite.id,
      details: { name: connector.name, hostname: request.hostname, address },
    },
    tx,
  );
  return {
    role: 'connector',
    id: connector.id,
    name: connector.name,
    certificate: certificate.pem,
    bundle: services.bundle.statement,
  };
}
