import { ZtnaError } from '../../protocol/index.ts';
import { shutdownSignal } from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import type { Permit } from '../agent/permit.ts';
import type { Profile } from '../agent/profile.ts';
import type { Tunnel } from '../agent/tunnel.ts';
import { explainEnd } from '../agent/tunnel-end.ts';
import { toIsoTime, type TunnelReporter } from '../agent/tunnel-event.ts';
import { watchFor } from '../agent/tunnel-report.ts';
import { parseAppName } from '../app-name.ts';
import { withAppListener, type AppListenerOptions } from '../front-end/app-listener.ts';
import {
  formatAddress,
  isLoopback,
  parseListenAddress,
  type ListenAddress,
} from '../front-end/listen-address.ts';
import { promptAt } from '../front-end/person.ts';
import { bindFirst, candidatePorts } from '../front-end/port-choice.ts';
import { recallPort, rememberPort, type RememberedPort } from '../front-end/port-memory.ts';
import type { SignInPrompt } from '../front-end/sign-in-prompt.ts';
import { openStdioOutput } from '../front-end/stdio-output.ts';
import { carryStdio } from '../front-end/stdio.ts';
import { startPatiently } from '../front-end/patient-start.ts';
import { createReporter } from '../front-end/tunnel-reporter.ts';
import { watchSession } from '../front-end/watch-session.ts';
import { unlessAborted } from '../front-end/unless-aborted.ts';
import { MachinePosture } from '../posture/machine-posture.ts';
import { openLogger, requireIdentity, type GlobalOptions } from './context.ts';

export interface ConnectOptions extends GlobalOptions {
  readonly app: string;
  readonly listen: string | undefined;
  readonly isAnywhere: boolean;
  readonly isStdio: boolean;
  readonly isRemembering: boolean;
}

/** Reaches an app on a local port, or on standard input and output, until interrupted or cut off. */
export async function runConnect(options: ConnectOptions): Promise<void> {
  const { listen, isRemembering } = options;
  const app = parseAppName(options.app);
  if (options.isStdio && (listen !== undefined || isRemembering)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: '--stdio listens nowhere, so --listen and --remember do not go with it',
      hint: 'leave one of them out',
      hop: 'client',
    });
  }
  const asked = listen === undefined ? undefined : checkListen(listen, options.isAnywhere);
  if (isRemembering && (asked === undefined || asked.port === 0)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: '--remember needs a port to remember',
      hint: 'add --listen PORT',
      hop: 'client',
    });
  }
  const { profile, identity } = await requireIdentity(options);
  const reporter = createReporter({ isJson: options.json, isDataTaken: options.isStdio });
  const signal = shutdownSignal();
  let prompt: SignInPrompt | undefined;
  const startAgent = async (): Promise<Agent> => {
    const agent = await startPatiently({
      start: () => {
        const posture = new MachinePosture();
        return Agent.start({ profile, identity, logger: openLogger(), signal, app, posture });
      },
      passing: ['ERR_LIMIT_RATE'],
      say: (line) => {
        reporter.say(line);
      },
      signal,
    });
    watchSession(agent, reporter, signal);
    const person = { agent, profile, reporter, isInputTaken: options.isStdio };
    prompt = options.json ? undefined : promptAt(person, signal);
    return agent;
  };
  const requestPermit = async (agent: Agent, name: string): Promise<Permit> => {
    const ask = () => agent.requestPermit(name);
    return prompt ? prompt.retry(name, ask) : ask();
  };
  if (options.isStdio) {
    const agent = await startAgent();
    try {
      const opening = requestPermit(agent, app).then((permit) => agent.openTunnel(permit));
      await unlessAborted(carryTunnel(agent, opening, reporter), signal);
    } finally {
      await agent.stop(signal.aborted ? 'interrupted' : 'done');
    }
    return;
  }
  const memory = await recallPort(profile, app);
  const chosen = memory.chosen === null ? undefined : checkListen(memory.chosen, false);
  const listener: AppListenerOptions = {
    startAgent,
    requestPermit,
    app,
    reporter,
    fixed: asked ?? chosen,
    bind: bindOf(profile, app, memory),
    signal,
  };
  await withAppListener(listener, async (address, ended) => {
    if (isRemembering) await rememberPort(profile, app, { chosen: formatAddress(address) });
    const error = await unlessAborted(ended, signal);
    if (error) throw error;
  });
}

/** Reads --listen and refuses what others than this machine could reach. */
function checkListen(text: string, isAnywhere: boolean): ListenAddress {
  const address = parseListenAddress(text);
  if (isLoopback(address.host)) return address;
  if (!isAnywhere) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `${address.host} can be reached from other machines`,
      hint: `use ${formatAddress({ host: '127.0.0.1', port: address.port })}`,
      hop: 'client',
    });
  }
  // No policy can allow it yet, and what policy does not allow is refused.
  throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
    message: 'not available yet: listening beyond loopback, which a policy must allow',
    hint: `use ${formatAddress({ host: '127.0.0.1', port: address.port })}`,
    hop: 'client',
  });
}

/** Takes the hint if it is free, else the port that the app had before, else the next that is free. */
function bindOf(
  profile: Profile,
  app: string,
  { automatic }: RememberedPort,
): AppListenerOptions['bind'] {
  return async (portHint, listen) => {
    const candidates = candidatePorts({
      profile: profile.name,
      app,
      hint: portHint,
      remembered: automatic ?? undefined,
    });
    const { listener, candidate } = await bindFirst(candidates, listen);
    if (candidate.from === 'automatic' && automatic === null) {
      await rememberPort(profile, app, { automatic: candidate.port });
    }
    return listener;
  };
}

async function carryTunnel(
  agent: Agent,
  opening: Promise<Tunnel>,
  reporter: TunnelReporter,
): Promise<void> {
  const tunnel = await opening;
  tunnel.accepted.then(
    () => reporter.report({ event: 'open', tunnel: tunnel.id, until: toIsoTime(tunnel.untilMs) }),
    () => undefined, // the stream is reset with it
  );
  tunnel.watcher = watchFor(tunnel, reporter);
  try {
    await carryStdio(tunnel.openStream(), process.stdin, openStdioOutput());
    await agent.closeTunnel(tunnel, 'done');
  } catch (error) {
    if (tunnel.isOpen) throw error;
    const end = explainEnd(await tunnel.closed);
    reporter.report({ event: 'closed', reason: end.reason, code: end.code });
    throw end;
  }
}
