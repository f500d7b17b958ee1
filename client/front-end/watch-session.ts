import type { Agent } from '../agent/agent.ts';
import type { TunnelReporter } from '../agent/tunnel-event.ts';
import { warnOfSessionEnd } from './session-warning.ts';

/** Tells the person in time that the sign-in ends, until the signal aborts; a service renews its own. */
export function watchSession(
  agent: Agent,
  reporter: Pick<TunnelReporter, 'say'>,
  signal: AbortSignal,
): void {
  if (agent.isService) return;
  void warnOfSessionEnd({
    session: agent.session,
    ask: async () => (await agent.request({ type: 'status' })).session,
    nowMs: () => agent.clock.nowMs(),
    say: (line) => {
      reporter.say(line);
    },
    signal,
  });
}
