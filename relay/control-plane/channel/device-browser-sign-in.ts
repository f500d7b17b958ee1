import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { openSession } from '../access/open-session.ts';
import { beginSignIn, redeemSignIn } from '../identity/index.ts';
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
      return { type: 'providers', id: request.id, isLocal: true, providers: [] };
    case 'sign_in_begin':
      return begin(services, peer, request);
    case 'sign_in_finish':
      return finish(services, peer, request);
  }
}

async function begin(
  { store, clock, settings }: Services,
  peer: DevicePeer,
  request: Extract<Request, { type: 'sign_in_begin' }>,
): Promise<Answer<'sign_in_started'>> {
  const { id, provider, challenge, loopbackPort, isStepUp } = request;
  if (request.method === 'device_code') throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE');
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
  const url = new URL(`/sign-in/${signIn.id}`, settings.url).href;
  const { expiresAtMs } = signIn;
  return {
    type: 'sign_in_started',
    id,
    signIn: signIn.id,
    url,
    userCode: null,
    pollMs,
    expiresAtMs,
  };
}

async function finish(
  services: Services,
  peer: DevicePeer,
  request: Extract<Request, { type: 'sign_in_finish' }>,
): Promise<Answer<'signed_in'>> {
  const { store, clock, sealer } = services;
  const { id, signIn, ticket, verifier } = request;
  const session = await store.write(async (tx) => {
    const given = { id: signIn, deviceId: peer.id, verifier, ticket, nowMs: clock.nowMs() };
    const proof = await redeemSignIn(tx, sealer, given);
    return openSession(services, tx, peer.id, proof, peer.address);
  });
  const { address } = peer;
  const user = session.userId;
  services.risk.note({ kind: 'sign_in', user, device: peer.id, app: null, address });
  verifyDevice(services, peer.id);
  return { type: 'signed_in', id, session: await sessionFactsOf(services, session) };
}
