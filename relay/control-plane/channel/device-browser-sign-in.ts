import { toZtnaError, ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { openSession } from '../access/open-session.ts';
import { beginSignIn, redeemSignIn, refuseSignIn } from '../identity/index.ts';
import { askForDeviceCode, beginDeviceCode } from '../identity/oidc/device-code.ts';
import { getProvider, listProviders } from '../identity/oidc/settings.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import { verifyDevice } from './device-posture.ts';
import { sessionFactsOf } from './device-session.ts';

type Request = Extract<FromDevice, { type: 'providers' | 'sign_in_begin' | 'sign_in_finish' }>;
type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/** Between two attempts to finish a sign-in that a person is at. */
const pollMs = 2_000;

/** What a device asks to sign its user in elsewhere than on its own terminal. */
export async function answerBrowserSignIn(
  services: Services,
  peer: DevicePeer,
  request: Request,
): Promise<ToDevice> {
  switch (request.type) {
    case 'providers':
      return tellProviders(services, request.id);
    case 'sign_in_begin':
      return begin(services, peer, request);
    case 'sign_in_finish':
      return finish(services, peer, request);
  }
}

async function tellProviders({ store }: Services, id: number): Promise<Answer<'providers'>> {
  const local = await store.db
    .selectFrom('users')
    .select('id')
    .where('passwordHash', 'is not', null)
    .limit(1)
    .executeTakeFirst();
  const providers = (await listProviders(store.db)).slice(0, 32).map(({ name, settings }) => {
    const { title, hasDeviceCode } = settings;
    return { name, title, hasDeviceCode };
  });
  return { type: 'providers', id, isLocal: local !== undefined, providers };
}

async function begin(
  services: Services,
  peer: DevicePeer,
  request: Extract<Request, { type: 'sign_in_begin' }>,
): Promise<Answer<'sign_in_started'>> {
  const { store, clock, settings } = services;
  const { id, method, challenge, loopbackPort, isStepUp } = request;
  const provider =
    method === 'device_code' ? await onlyProvider(services, request) : request.provider;
  if (provider !== null && provider !== 'local') await getProvider(store.db, provider);
  const signIn = await store.write((tx) =>
    beginSignIn(tx, {
      purpose: 'session',
      deviceId: peer.id,
      provider,
      challenge,
      loopbackPort,
      isStepUp,
      address: peer.address,
      nowMs: clock.nowMs(),
    }),
  );
  const started = { type: 'sign_in_started', id, signIn: signIn.id } as const;
  if (method === 'device_code') {
    try {
      return { ...started, ...(await beginDeviceCode(services, signIn, provider ?? '')) };
    } catch (error) {
      await store.write((tx) =>
        refuseSignIn(tx, signIn.id, 'ERR_IDENTITY_SIGN_IN_REFUSED', 'provider_unreachable'),
      );
      throw error;
    }
  }
  const url = new URL(`/sign-in/${signIn.id}`, settings.url).href;
  return { ...started, url, userCode: null, pollMs, expiresAtMs: signIn.expiresAtMs };
}

/** The provider that was named, else the only one with a page for codes. */
async function onlyProvider(
  { store }: Services,
  { provider }: { readonly provider: string | null },
): Promise<string> {
  if (provider !== null) return provider;
  const able = (await listProviders(store.db)).filter(({ settings }) => settings.hasDeviceCode);
  const [only, other] = able;
  if (only && !other) return only.name;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: only ? 'there are several providers' : 'no provider has a page for codes',
    hint: only ? 'name one: ztna login --device-code --provider NAME' : 'sign in with a browser',
  });
}

async function finish(
  services: Services,
  peer: DevicePeer,
  request: Extract<Request, { type: 'sign_in_finish' }>,
): Promise<Answer<'signed_in'>> {
  const { store, clock, sealer } = services;
  const { id, signIn, ticket, verifier } = request;
  if (ticket === null) {
    const asked = { id: signIn, device: peer.id, verifier };
    await noting(services, peer, null, askForDeviceCode(services, asked));
  }
  const opening = store.write(async (tx) => {
    const given = { id: signIn, deviceId: peer.id, verifier, ticket, nowMs: clock.nowMs() };
    const proof = await redeemSignIn(tx, sealer, given);
    return openSession(services, tx, peer.id, proof, peer.address);
  });
  const session = await noting(services, peer, finishReasons, opening);
  const { address } = peer;
  const user = session.userId;
  services.risk.note({ kind: 'sign_in', user, device: peer.id, app: null, address });
  verifyDevice(services, peer.id);
  return { type: 'signed_in', id, session: await sessionFactsOf(services, session, peer.version) };
}

/** What a sign-in is refused with when it is finished; pages and providers put theirs on record where that happens. */
const finishReasons: readonly string[] = [
  ...['sign_in_unknown', 'verifier_wrong', 'ticket_wrong', 'ticket_used', 'sign_in_over'],
  ...['device_not_of_user', 'user_not_active', 'provider_other'],
];

/** Puts a refusal on record; with `reasons` only for one of these. */
async function noting<T>(
  { refusals }: Services,
  { id, address }: DevicePeer,
  reasons: readonly string[] | null,
  work: Promise<T>,
): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const { code, reason = '' } = toZtnaError(thrown);
    const isNew = reasons === null || reasons.includes(reason);
    if (code === 'ERR_IDENTITY_SIGN_IN_REFUSED' && isNew) {
      await refusals.record(address, {
        actor: `device:${id}`,
        action: 'session.sign_in',
        subject: id,
        details: { code, reason, address },
      });
    }
    throw thrown;
  }
}
