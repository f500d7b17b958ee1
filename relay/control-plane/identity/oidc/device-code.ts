import { createHash } from 'node:crypto';
import { genericGrantRequest, initiateDeviceAuthorization, ResponseBodyError } from 'openid-client';
import * as v from 'valibot';
import { ZtnaError, type DeviceId } from '../../../../protocol/index.ts';
import { findOpenSignIn, proveSignIn, refuseSignIn } from '../index.ts';
import type { Services } from '../../services.ts';
import type { SignIn } from '../../store/index.ts';
import { aboutState } from './code-flow.ts';
import { refusal, toRefusal } from './failure.ts';
import { proofOf, readClaims } from './tokens.ts';

/** Between two questions whether the person is done, where the provider does not say. */
const defaultIntervalS = 5;
/** How much longer, each time that it finds us too quick. */
const slowDownMs = 5_000;

const stateSchema = v.strictObject({
  kind: v.literal('device_code'),
  provider: v.string(),
  deviceCode: v.string(),
  intervalMs: v.number(),
  nextAtMs: v.number(),
});

/** What a person types, and where. */
export interface DeviceCode {
  readonly url: string;
  readonly userCode: string;
  readonly pollMs: number;
  readonly expiresAtMs: number;
}

/**
 * Asks a provider for a code that a person types at its own page. Throws ERR_CONFIG_NOT_AVAILABLE where it has no such page, and
 * what `ProviderBook.open` and `toRefusal` do.
 */
export async function beginDeviceCode(
  services: Services,
  signIn: SignIn,
  name: string,
): Promise<DeviceCode> {
  const { store, sealer, clock } = services;
  const provider = await services.providers.open(name).catch((error: unknown) => {
    throw toRefusal(error);
  });
  const { config, metadata, settings } = provider;
  if (metadata.device_authorization_endpoint === undefined) {
    throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
      message: `${settings.title} has no page for codes`,
      hint: 'sign in with a browser: ztna login --no-browser shows an address for another machine',
    });
  }
  const scope = settings.scopes.join(' ');
  const answer = await initiateDeviceAuthorization(config, { scope }).catch((error: unknown) => {
    throw toRefusal(error);
  });
  const url = answer.verification_uri_complete ?? answer.verification_uri;
  if (new URL(url).protocol !== 'https:') throw refusal('provider_answer_malformed');
  const intervalMs = Math.max(1, answer.interval ?? defaultIntervalS) * 1_000;
  const expiresAtMs = Math.min(signIn.expiresAtMs, clock.nowMs() + answer.expires_in * 1_000);
  const state: v.InferOutput<typeof stateSchema> = {
    ...{ kind: 'device_code', provider: name, deviceCode: answer.device_code },
    ...{ intervalMs, nextAtMs: clock.nowMs() },
  };
  await store.write((tx) =>
    tx
      .updateTable('signIns')
      .set({ sealedState: sealer.seal(JSON.stringify(state), aboutState(signIn.id)), expiresAtMs })
      .where('id', '=', signIn.id)
      .execute(),
  );
  return { url, userCode: answer.user_code, pollMs: intervalMs, expiresAtMs };
}

/**
 * Asks the provider whether the person has typed the code, if it is time to and that is what the sign-in waits for, and notes what
 * comes of it in the sign-in. Throws ERR_IDENTITY_SIGN_IN_REFUSED where it came to nothing.
 */
export async function askForDeviceCode(
  services: Services,
  asked: { readonly id: string; readonly device: DeviceId; readonly verifier: string },
): Promise<void> {
  const { store, clock, sealer } = services;
  const signIn = await findOpenSignIn(store.db, asked.id, clock.nowMs());
  const challenge = createHash('sha256').update(asked.verifier).digest('base64url');
  if (signIn?.deviceId !== asked.device || signIn.challenge !== challenge) return;
  const sealed = signIn.sealedState;
  const opened: unknown = sealed && JSON.parse(sealer.open(sealed, aboutState(signIn.id)));
  if (!v.is(stateSchema, opened)) return;
  const nowMs = clock.nowMs();
  if (nowMs < opened.nextAtMs) return;
  const again = (intervalMs: number) =>
    sealer.seal(
      JSON.stringify({ ...opened, intervalMs, nextAtMs: nowMs + intervalMs }),
      aboutState(signIn.id),
    );
  const taken = again(opened.intervalMs);
  if (!(await swap(services, signIn.id, sealed, taken))) return; // somebody else asks just now
  try {
    await ask(services, signIn, opened);
  } catch (thrown) {
    if (thrown instanceof ResponseBodyError) {
      if (thrown.error === 'authorization_pending') return;
      if (thrown.error === 'slow_down') {
        await swap(services, signIn.id, taken, again(opened.intervalMs + slowDownMs));
        return;
      }
    }
    const error = reasonFor(thrown);
    if (error.code === 'ERR_RELAY_UNAVAILABLE') return; // asked again in a while
    await store.write((tx) =>
      refuseSignIn(tx, signIn.id, 'ERR_IDENTITY_SIGN_IN_REFUSED', error.reason ?? 'sign_in_failed'),
    );
    throw error;
  }
}

async function ask(
  services: Services,
  signIn: SignIn,
  { provider: name, deviceCode }: v.InferOutput<typeof stateSchema>,
): Promise<void> {
  const { store, sealer, clock } = services;
  const provider = await services.providers.open(name);
  const grantType = 'urn:ietf:params:oauth:grant-type:device_code';
  const tokens = await genericGrantRequest(provider.config, grantType, { device_code: deviceCode });
  const claims = await readClaims(provider, tokens);
  await store.write(async (tx) => {
    const { proof } = await proofOf(services, tx, provider, signIn, tokens, claims);
    const device = await tx
      .selectFrom('devices')
      .select('userId')
      .where('id', '=', signIn.deviceId ?? ('' as DeviceId))
      .executeTakeFirst();
    if (device?.userId !== proof.user) throw refusal('device_not_of_user');
    await proveSignIn(tx, sealer, signIn.id, proof, { nowMs: clock.nowMs(), needsTicket: false });
  });
}

function reasonFor(thrown: unknown): ZtnaError {
  if (thrown instanceof ResponseBodyError) {
    if (thrown.error === 'access_denied') return refusal('denied_by_provider', thrown);
    if (thrown.error === 'expired_token') return refusal('sign_in_over', thrown);
  }
  return toRefusal(thrown);
}

async function swap(
  { store }: Services,
  id: string,
  from: string | null,
  to: string,
): Promise<boolean> {
  const swapped = await store.write((tx) =>
    tx
      .updateTable('signIns')
      .set({ sealedState: to })
      .where('id', '=', id)
      .where('state', '=', 'begun')
      .where('sealedState', '=', from)
      .returning('id')
      .executeTakeFirst(),
  );
  return swapped !== undefined;
}
