import type { Tunnel } from './tunnel.ts';
import { toIsoTime, type TunnelReporter } from './tunnel-event.ts';
import type { TunnelWatcher } from './tunnel-watcher.ts';

/** Tells people and scripts what happens to a tunnel between its opening and its end. */
export function watchFor(
  tunnel: Pick<Tunnel, 'untilMs'>,
  reporter: Pick<TunnelReporter, 'report'>,
): Pick<TunnelWatcher, 'onVerified' | 'onDetached' | 'onSuspended' | 'onResumed' | 'onMoved'> {
  return {
    onVerified: () => {
      reporter.report({ event: 'verified', until: toIsoTime(tunnel.untilMs) });
    },
    onDetached: (reason, untilMs) => {
      reporter.report({ event: 'detached', reason, until: toIsoTime(untilMs) });
    },
    onSuspended: ({ reason, fix }, untilMs) => {
      reporter.report({ event: 'suspended', reason, fix, until: toIsoTime(untilMs) });
    },
    onResumed: () => {
      reporter.report({ event: 'resumed' });
    },
    onMoved: () => {
      reporter.report({ event: 'moved' });
    },
  };
}
