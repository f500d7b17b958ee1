import { ZtnaError } from '../../../protocol/index.ts';

/** What everyone is told while the store is away. */
export function storeUnavailable(cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: 'the store is not available',
    reason: 'store_unavailable',
    cause,
  });
}
