import { greetingHoldMs } from '../limits.ts';
import type { Services } from '../services.ts';

const lookEveryMs = 50;

/**
 * Keeps devices waiting after a start until a data plane and the connectors of all live tunnels are back, or for a
 * while at most: a crowd of devices that lost this relay asks for nothing else than a way to those connectors, and each
 * that is answered too soon asks again. Answers how to stop.
 */
export function holdGreetings(services: Services): () => void {
  const { greetings, tunnels } = services;
  if (tunnels.size === 0) return () => undefined;
  greetings.hold();
  const startedAtMs = performance.now();
  const stop = (): void => {
    clearInterval(timer);
    greetings.release();
  };
  const timer = setInterval(() => {
    if (isComplete(services) || performance.now() - startedAtMs >= greetingHoldMs) stop();
  }, lookEveryMs);
  return stop;
}

function isComplete({ peers, tunnels }: Services): boolean {
  if (peers.relays.size === 0) return false;
  for (const { state, connector } of tunnels.all()) {
    if (state !== 'closed' && !peers.connectors.has(connector)) return false;
  }
  return true;
}
