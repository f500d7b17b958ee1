import type { LinkState } from './control-links.ts';
import type { RelayState } from './relay-slots.ts';

/**
 * What keeps a connector from carrying tunnels, a line each: it needs one control plane and one relay to begin with,
 * and none that is wedged.
 */
export function findProblems(
  links: readonly LinkState[],
  relays: readonly RelayState[],
  isTimeKnown: boolean,
): string[] {
  const isLinked = links.some(({ state }) => state === 'open');
  const unlinked = isLinked ? links.filter(({ state }) => state === 'wedged') : links;
  if (unlinked.length > 0) {
    return unlinked.map(({ url, error }) => {
      const why = error ? `: ${error.message} [${error.code}]` : '';
      return `no control channel to ${url}${why}`;
    });
  }
  if (!isTimeKnown) return ['control time is unknown'];
  const wedged = relays.filter(({ state }) => state === 'wedged');
  const counted = wedged.length > 0 ? wedged : relays;
  const isServing = relays.some(({ state }) => state === 'filled');
  if (isServing && wedged.length === 0) return [];
  if (relays.length === 0) return ['no relay is assigned'];
  return counted.map(
    ({ id, url, idle, wanted, state }) =>
      `relay ${id} ${url} is ${state}: ${idle} of ${wanted} idle sockets stand`,
  );
}

/** The same channel, for status. */
export function describeLink({ url, state, error }: LinkState) {
  return { url, state, error: error ? { code: error.code, message: error.message } : null };
}
