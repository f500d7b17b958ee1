import { spawn, type ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { ZtnaError } from '../../protocol/index.ts';
import { Agent } from '../agent/agent.ts';
import { parseAppName } from '../app-name.ts';
import { withAppListener } from '../front-end/app-listener.ts';
import { childEnvironment, fillCommand } from '../front-end/child-command.ts';
import { loopbackHost, type ListenAddress } from '../front-end/listen-address.ts';
import { promptAt } from '../front-end/person.ts';
import type { SignInPrompt } from '../front-end/sign-in-prompt.ts';
import { watchSession } from '../front-end/watch-session.ts';
import { startPatiently } from '../front-end/patient-start.ts';
import { createReporter } from '../front-end/tunnel-reporter.ts';
import { MachinePosture } from '../posture/machine-posture.ts';
import { openLogger, requireIdentity, say, type GlobalOptions } from './context.ts';

export interface RunOptions extends GlobalOptions {
  readonly app: string;
  readonly command: readonly string[];
}

/** Signals that the child gets when we do. */
const forwarded = ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

/** Runs a command with an app behind a local port; ends as the command ends. */
export async function runRun(options: RunOptions): Promise<void> {
  const app = parseAppName(options.app);
  if (options.command.length === 0) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'there is no command to run',
      hint: 'ztna run APP -- CMD …',
      hop: 'client',
    });
  }
  const { profile, identity } = await requireIdentity(options);
  const reporter = createReporter({ isJson: options.json, isDataTaken: true });
  let prompt: SignInPrompt | undefined;
  const ended = new AbortController(); // signals are the child's; it ends, and then so do we
  const start = async (): Promise<Agent> => {
    const agent = await startPatiently({
      start: () => {
        const posture = new MachinePosture();
        return Agent.start({ profile, identity, logger: openLogger(), app, posture });
      },
      // Whoever starts this from a script may well sign in to the network meanwhile.
      passing: ['ERR_LIMIT_RATE', 'ERR_NETWORK_CAPTIVE_PORTAL'],
      say,
      signal: ended.signal,
    });
    watchSession(agent, reporter, ended.signal);
    const person = { agent, profile, reporter, isInputTaken: true };
    prompt = options.json ? undefined : promptAt(person, ended.signal);
    return agent;
  };
  await withAppListener(
    {
      startAgent: start,
      requestPermit: async (agent, name) => {
        const ask = () => agent.requestPermit(name);
        return prompt ? prompt.retry(name, ask) : ask();
      },
      app,
      reporter,
      bind: async (_, listen) => listen({ host: loopbackHost, port: 0 }),
      signal: ended.signal,
    },
    async (address, lost) => {
      // The child may have more to do than this app, so an end of access is told, not forced on it.
      void lost.then((error) => {
        if (error) say(`${app}: ${error.message} [${error.code}]`);
      });
      try {
        process.exitCode = await runChild(options.command, address);
      } finally {
        ended.abort();
      }
    },
  );
}

/** Runs the child and answers its exit code, 128 + n when signal n ended it. */
async function runChild(command: readonly string[], address: ListenAddress): Promise<number> {
  const [file = '', ...args] = fillCommand(command, address);
  // From here on the child decides what a signal means. No moment goes by without a listener: a terminal sends
  // Ctrl-C to both of us, and by default it would end us alone.
  const removals = forwarded.map((signal) => {
    const listener = (): void => {
      forward(child, signal);
    };
    const replaced = process.listeners(signal);
    process.on(signal, listener);
    for (const old of replaced) process.off(signal, old);
    return () => void process.off(signal, listener);
  });
  const child = spawn(file, args, {
    stdio: 'inherit',
    env: childEnvironment(process.env, address),
  });
  try {
    return await new Promise<number>((resolve, reject) => {
      child.once('error', (cause) => {
        reject(
          new ZtnaError('ERR_CONFIG_USAGE', {
            message: `${file} could not be started`,
            hint: 'check the command behind --',
            hop: 'client',
            cause,
          }),
        );
      });
      child.once('exit', (code, signal) => {
        resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
      });
    });
  } finally {
    for (const remove of removals) remove();
  }
}

/** What reaches the child by itself, from its terminal, is not sent again: told twice, many programs end less gently. */
function forward(child: ChildProcess, signal: NodeJS.Signals): void {
  const isFromTerminal = process.stdin.isTTY && (signal === 'SIGINT' || signal === 'SIGQUIT');
  if (!isFromTerminal) child.kill(signal);
}
