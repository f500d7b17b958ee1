import type { ResetCode } from '../../protocol/index.ts';
import type { Agent } from '../agent/agent.ts';
import { KeptTunnel } from '../agent/kept-tunnel.ts';
import type { Permit } from '../agent/permit.ts';
import type { Tunnel } from '../agent/tunnel.ts';
import type { TunnelReporter } from '../agent/tunnel-event.ts';
import { unlessAborted } from './unless-aborted.ts';
import { formatAddress, type ListenAddress } from './listen-address.ts';
import { explainReset } from './reset-error.ts';
import { startLocalPort, type LocalPort } from './local-port.ts';

/** The resets that a program on this machine cannot know apart from an app's own. */
const toldResets: ReadonlySet<ResetCode> = new Set(['refused', 'unreachable', 'limit']);

/** A browser tries many connections at once, again and again. */
const tellEveryMs = 10_000;

export interface AppListenerOptions {
  /** Connects an agent, which is stopped here. */
  readonly startAgent: () => Promise<Agent>;
  /** Asks the agent for permission in a way of its own. */
  readonly requestPermit?: ((agent: Agent, app: string) => Promise<Permit>) | undefined;
  readonly app: string;
  readonly reporter: TunnelReporter;
  /** An address that was asked for: bound before anything is asked of the relay. */
  readonly fixed?: ListenAddress | undefined;
  /** Otherwise binds the local port, given the administrator's hint; called once, before the tunnel is opened. */
  readonly bind: (
    portHint: number | undefined,
    listen: (address: ListenAddress) => Promise<LocalPort>,
  ) => Promise<LocalPort>;
  readonly signal: AbortSignal;
}

/**
 * Connects an agent, listens for an app and opens its tunnel, then lets `use` have the address until it returns, the way to the app
 * ends for good, or the signal aborts. Throws what refused the tunnel or ended it.
 */
export async function withAppListener(
  options: AppListenerOptions,
  use: (address: ListenAddress, ended: KeptTunnel['ended']) => Promise<void>,
): Promise<void> {
  const { app, reporter, fixed, bind, signal } = options;
  const { requestPermit = async (from: Agent, name: string) => from.requestPermit(name) } = options;
  let starting: Promise<Agent> | undefined;
  let port: LocalPort | undefined;
  const agent = (): Promise<Agent> => (starting ??= options.startAgent());
  const onReset = tellRefusals(reporter);
  const kept: KeptTunnel = new KeptTunnel({
    agent: {
      requestPermit: async (name) => requestPermit(await agent(), name),
      openTunnel: async (permit) => (await agent()).openTunnel(permit),
      giveUp: (permit) => void agent().then((each) => each.giveUp(permit)),
      closeTunnel: async (tunnel, why) => (await agent()).closeTunnel(tunnel as Tunnel, why),
    },
    app,
    reporter,
    onPermit: async ({ portHint }) => {
      port ??= await bind(portHint, (address) => startLocalPort(address, kept, onReset));
      reporter.report({ event: 'listening', app, address: formatAddress(port.address) });
    },
  });
  try {
    if (fixed) port = await startLocalPort(fixed, kept, onReset);
    await unlessAborted(kept.start(), signal);
    if (port && !signal.aborted) await use(port.address, kept.ended);
  } finally {
    const reason = signal.aborted ? 'interrupted' : 'done';
    await kept.close(reason);
    await port?.stop();
    const started = await starting?.catch(() => undefined); // what it failed with has been thrown above
    await started?.stop(reason);
  }
}

/** Says why connections do not come about, where the way to the app itself is open. */
export function tellRefusals(
  reporter: Pick<TunnelReporter, 'say'>,
  nowMs: () => number = () => performance.now(),
): (code: ResetCode) => void {
  const toldAtMs = new Map<ResetCode, number>();
  return (code) => {
    if (!toldResets.has(code)) return;
    const lastMs = toldAtMs.get(code) ?? -Infinity;
    if (nowMs() - lastMs < tellEveryMs) return;
    toldAtMs.set(code, nowMs());
    const { hop, message, code: name } = explainReset(code);
    reporter.say(`${hop ?? 'app'}: ${message} [${name}]`);
  };
}
