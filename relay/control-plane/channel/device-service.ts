import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';

type Request = Extract<FromDevice, { type: 'service_challenge' | 'service_sign_in' }>;

export const answerService: (
  services: Services,
  peer: DevicePeer,
  request: Request,
) => Promise<ToDevice> = () => Promise.reject(new ZtnaError('ERR_CONFIG_NOT_AVAILABLE'));
