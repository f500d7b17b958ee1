import { errorRow, type ToDevice } from '../../protocol/index.ts';
import { conditionLines, printJsonLine } from '../../protocol/host/index.ts';
import { parseAppName } from '../app-name.ts';
import { print, say, withAgent, type GlobalOptions } from './context.ts';

type Answer = Extract<ToDevice, { type: 'why' }>;
type Rule = NonNullable<Answer['rules']>[number];

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
      const { allowed, decision, conditions, fix, rules = [] } = answer;
      printJsonLine({ app, allowed, decision, conditions, fix, rules });
      return;
    }
    print(`${app}: ${answer.allowed ? 'allowed' : 'denied'}`);
    const { conditions, rules = [] } = answer;
    const ofNone = conditions.filter(({ rule }) => rules.every(({ id }) => id !== rule));
    for (const line of conditionLines(ofNone)) print(line);
    for (const rule of rules) {
      const own = conditions.filter((condition) => condition.rule === rule.id);
      print(headOf(rule));
      for (const line of conditionLines(own)) print(line);
    }
    if (answer.fix !== null) say(`fix: ${answer.fix}`);
    say(`ref: ${answer.decision}`);
  });
}

const verbs = { permits: 'permits', would_permit: 'would permit', forbids: 'forbids' } as const;

function headOf({ id, name, effect }: Rule): string {
  return `${id} ${verbs[effect]}${name === null ? '' : `: ${name}`}`;
}
