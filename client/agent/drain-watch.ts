import { fullJitterDelayMs, type KnownRelays } from '../../protocol/host/index.ts';

/** Agents leave a relay that drains within this time, not all in the same moment. */
const leaveWithinMs = 1_000;

/**
 * Calls `leave` when the relay at `current` drains and there is another control plane to go to. Answers what stops that.
 */
export function watchDraining(
  known: KnownRelays,
  current: () => string | undefined,
  leave: () => void,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  const forget = known.onChange(({ relays }) => {
    clearTimeout(timer);
    const isLeaving = relays.some(({ url, isDraining }) => isDraining && url === current());
    const isOther = relays.some(({ isControl, isDraining }) => isControl && !isDraining);
    if (!isLeaving || !isOther) return;
    timer = setTimeout(leave, fullJitterDelayMs(0, { baseMs: leaveWithinMs }));
    timer.unref(); // losing the channel does as well
  });
  return () => {
    clearTimeout(timer);
    forget();
  };
}
