import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { recoverWhileRunning } from '../store/index.ts';

/**
 * From here on `services.onWentBack` makes the store of a restored backup safe to begin with. Resolves once that is done,
 * here or by another control plane.
 */
export function whenWentBack(services: Services, directory: string): Promise<void> {
  const { store, feed, audit, logger } = services;
  let isBusy = false;
  return new Promise((resolve) => {
    const recover = async () => {
      const isOurs = await recoverWhileRunning(store, directory, feed.incarnation);
      logger.warn('store_restored', { reason: 'store_older', isRunning: true });
      if (isOurs) {
        await audit.append({
          actor: 'system',
          action: 'store.restore',
          subject: 'control-plane',
          outcome: 'ok',
          details: { reason: 'store_older', isRunning: true },
        });
      }
      services.onWentBack = () => undefined;
      resolve();
    };
    services.onWentBack = () => {
      if (isBusy) return;
      isBusy = true;
      recover()
        .catch((error: unknown) => {
          const { code, reason } = toZtnaError(error);
          logger.warn('store_restore_unfinished', { code, reason }); // what noticed it notices again
        })
        .finally(() => {
          isBusy = false;
        });
    };
  });
}

/** Why a control plane ends when its store was restored. */
export function storeWentBack(): ZtnaError {
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: 'the store was restored while this control plane ran: it begins anew',
    reason: 'store_restored',
  });
}
