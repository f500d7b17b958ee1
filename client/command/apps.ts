import { printJsonLine, printTable } from '../../protocol/host/index.ts';
import { say, withAgent, type GlobalOptions } from './context.ts';

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
