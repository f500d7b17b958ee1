import type { Services } from '../services.ts';
import type { Signals } from './start.ts';

export type { Signals } from './start.ts';

const nothing: Signals = { answer: () => false, stop: () => Promise.resolve() };

/** Starts what `relay.yaml` says of signals; where it says nothing, none of it is even loaded. */
export async function openSignals(services: Services, directory: string): Promise<Signals> {
  const { receive = [], transmit = [], webhooks = [] } = services.settings.signals ?? {};
  if (receive.length + transmit.length + webhooks.length === 0) return nothing;
  const { startSignals } = await import('./start.ts');
  return startSignals(services, directory);
}
