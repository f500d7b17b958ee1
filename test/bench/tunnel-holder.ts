/**
 * Holds idle tunnels: one agent for each machine state directory given, each with as many tunnels as asked.
 *
 *   tunnel-holder.ts TUNNELS_EACH APP HOME…     prints `ready N` when all are open; ends with standard input
 */
import { Agent } from '../../client/agent/agent.ts';
import { openProfile } from '../../client/agent/profile.ts';
import { createLogger, loadIdentity } from '../../protocol/host/index.ts';

const [each = '0', app = '', ...homes] = process.argv.slice(2);
const logger = createLogger({ program: 'tunnel-holder', level: 'warn', format: 'text' });

let open = 0;
const agents: Agent[] = [];
for (const home of homes) {
  const profile = await openProfile(undefined, { ZTNA_HOME: home });
  const identity = await loadIdentity(profile.dir);
  if (!identity) throw new Error(`${home} is not enrolled`);
  const agent = await Agent.start({ profile, identity, logger });
  agents.push(agent);
  for (let i = 0; i < Number(each); i++) {
    const tunnel = await agent.openTunnel(await agent.requestPermit(app));
    await tunnel.accepted;
    open++;
  }
}
console.log(`ready ${open}`);
process.stdin.resume().once('end', () => {
  void Promise.all(agents.map((agent) => agent.stop())).then(() => process.exit(0));
});
