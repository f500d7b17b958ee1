import {
  toZtnaError,
  verifyPermit,
  ZtnaError,
  type Grant,
  type RelayId,
  type ToDevice,
  type VerifiedPermit,
} from '../../protocol/index.ts';
import type { OfferedRelay } from './relay-book.ts';
import type { Identity } from '../../protocol/host/index.ts';

/** A relay that a path may go by. */
export interface PathRelay {
  readonly id: RelayId;
  readonly url: string;
}

/** Permission for one path of a tunnel, checked for this device, and where to use it. */
export interface Permit {
  readonly app: string;
  readonly verified: VerifiedPermit;
  readonly relays: readonly OfferedRelay[];
  readonly portHint: number | undefined;
}

/** What the control plane answers a request with: not verified yet. */
export type PermitAnswer = Extract<ToDevice, { readonly type: 'permit' | 'path_permit' }>;

/**
 * Verifies what the control plane answered. Throws as `verifyPermit`, but ERR_RELAY_UNAVAILABLE for a grant that is not of
 * our time: the relay's clock was set, and the next exchange will tell us.
 */
export function readPermit(
  app: string,
  answer: PermitAnswer,
  at: { readonly identity: Identity; readonly nowMs: number },
): Permit {
  const { id, bundle, noisePublicKey } = at.identity;
  const verified = verifyInTime(
    { grant: answer.grant, roster: answer.roster },
    { bundle, device: id, deviceKey: noisePublicKey, nowMs: at.nowMs },
  );
  return {
    app,
    verified,
    relays: answer.relays.filter((relay) => verified.grant.relays.includes(relay.id)),
    portHint: answer.portHint ?? undefined,
  };
}

function verifyInTime(...args: Parameters<typeof verifyPermit>): VerifiedPermit {
  try {
    return verifyPermit(...args);
  } catch (error) {
    const { code } = toZtnaError(error);
    if (code !== 'ERR_GRANT_REFUSED' && code !== 'ERR_GRANT_EXPIRED') throw error;
    throw new ZtnaError('ERR_RELAY_UNAVAILABLE', {
      message: 'the time of the relay and ours differ at present',
      hint: 'try again in a few seconds',
      hop: 'relay',
      reason: 'time_differs',
      cause: error,
    });
  }
}

/** Throws ERR_GRANT_MISMATCH for permission that is not for a later path of the very tunnel that `present` opened. */
export function checkNextPath({ grant }: VerifiedPermit, present: Grant): void {
  const isNext =
    grant.version >= 2 &&
    grant.tunnel === present.tunnel &&
    grant.app === present.app &&
    grant.connector === present.connector &&
    grant.instance === present.instance &&
    grant.generation > present.generation;
  if (!isNext) throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'other_tunnel', hop: 'relay' });
}
