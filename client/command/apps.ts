import { printJsonLine, printTable } from '../../protocol/host/index.ts';
import { errorRow } from '../../protocol/index.ts';
import { parseAppName } from '../app-name.ts';
import { print, say, withAgent, type GlobalOptions } from './context.ts';

/** Lists what this user may reach, or could by a remedy of his or her own. */
export async function runApps(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    const { apps } = await agent.request({ type: 'apps' });
    if (options.json) {
      for (const app of apps) printJsonLine(app);
    } else if (apps.length === 0) {
      say('there is no app that you may reach');
    } else {
      const rows = apps.map((app) => ({
        APP: app.name,
        KIND: app.kind,
        STATE: app.state,
        FIX: app.fix ?? '',
      }));
      process.stdout.write(printTable(rows, ['APP', 'KIND', 'STATE', 'FIX']));
    }
  });
}

export interface WhyOptions extends GlobalOptions {
  readonly app: string;
}

/** Explains a decision to the user whom it is about. Ends with 0 when the app is allowed, 5 when it is not. */
export async function runWhy(options: WhyOptions): Promise<void> {
  const app = parseAppName(options.app);
  await withAgent(options, async (agent) => {
    const answer = await agent.request({ type: 'why', app });
    if (!answer.allowed) process.exitCode = errorRow('ERR_POLICY_DENIED').exitCode;
    if (options.json) {
      const { allowed, decision, conditions, fix } = answer;
      printJsonLine({ app, allowed, decision, conditions, fix });
      return;
    }
    print(`${app}: ${answer.allowed ? 'allowed' : 'denied'}`);
    for (const { what, actual, required, met } of answer.conditions) {
      print(`  ${met ? 'met    ' : 'not met'}  ${what}: is ${actual}, must be ${required}`);
    }
    if (answer.fix !== null) say(`fix: ${answer.fix}`);
    say(`ref: ${answer.decision}`);
  });
}
