import { ZtnaError } from '../../../protocol/index.ts';
import {
  keepPasskeyChallenge,
  passkeyOptions,
  provePasskey,
  relyingPartyOf,
  takePasskeyChallenge,
  type RelyingParty,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import { readForm } from './form.ts';
import type { Proved } from './password-steps.ts';
import { reply, type WebRequest } from './request.ts';

/** Answers our script with what a browser asks its authenticators for. */
export async function replyPasskeyOptions(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
): Promise<void> {
  await readForm(services, web);
  const options = await passkeyOptions(partyOf(services));
  await services.store.write((tx) => keepPasskeyChallenge(tx, signIn.id, options.challenge));
  reply(web.response, 200, 'application/json', JSON.stringify(options));
}

/** Throws ERR_IDENTITY_SIGN_IN_REFUSED: `challenge_used`, or as `provePasskey`. */
export async function provePasskeyOnPage(
  services: Services,
  signIn: SignIn,
  credential: string,
): Promise<Proved> {
  const { store } = services;
  const party = partyOf(services);
  const challenge = await store.write((tx) => takePasskeyChallenge(tx, signIn.id));
  if (challenge === undefined) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'challenge_used' });
  }
  const user = await provePasskey(services, party, challenge, parseCredential(credential));
  return { user, methods: ['passkey'] };
}

/** Whom passkeys here are for. Throws ERR_CONFIG_NOT_AVAILABLE for a deployment that has no name. */
export function partyOf({ settings }: Services): RelyingParty {
  const party = relyingPartyOf(settings);
  if (party) return party;
  throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
    hint: 'passkeys need an address with a name, and this deployment has a number',
  });
}

/** What our script sent of a passkey. */
export function parseCredential(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // refused as anything else that is no passkey
  }
}
