import { ZtnaError } from '../../../protocol/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';

/** Throws ERR_LIMIT_RATE when the device has asked too often. */
export function takeTurn(
  throttle: Services['requestThrottle'],
  { clock }: Services,
  peer: DevicePeer,
): void {
  if (!throttle.take(peer.id, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
}
