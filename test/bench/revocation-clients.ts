/**
 * Holds busy tunnels: one agent for each machine state directory given, each with as many tunnels as asked, one
 * connection in each that carries a byte both ways again and again.
 *
 *   revocation-clients.ts TUNNELS_EACH APP MARK FAST HOME…
 *
 * The first FAST tunnels of all carry a byte every 5 ms, the others one a second. Machines tell of themselves that the
 * check `mark` passes while the file MARK is there. Prints `ready N` when all carry bytes; a line on standard input is
 * answered by one line of JSON: of each tunnel, when its last byte came back here, in milliseconds of this machine's clock.
 */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Agent } from '../../client/agent/agent.ts';
import { openProfile } from '../../client/agent/profile.ts';
import type { PostureSource } from '../../client/agent/posture-sender.ts';
import type { Tunnel } from '../../client/agent/tunnel.ts';
import { createLogger, loadIdentity } from '../../protocol/host/index.ts';

const [each = '0', app = '', mark = '', fast = '0', ...homes] = process.argv.slice(2);
const logger = createLogger({ program: 'revocation-clients', level: 'error', format: 'text' });

const fastEveryMs = 5;
const slowEveryMs = 1_000;
const lookEveryMs = 50;

/** Looks at one file, and tells at once when it comes or goes. */
class MarkPosture implements PostureSource {
  #timer: NodeJS.Timeout | undefined;

  start({ everyMs, onFacts }: Parameters<PostureSource['start']>[0]): void {
    clearInterval(this.#timer);
    let toldAtMs = 0;
    let wasThere: boolean | undefined;
    const look = (): void => {
      const isThere = existsSync(mark);
      if (isThere === wasThere && Date.now() - toldAtMs < everyMs) return;
      wasThere = isThere;
      toldAtMs = Date.now();
      const facts = {
        platform: 'linux',
        osVersion: '12',
        clientVersion: '0.1.0',
        checks: [['mark', isThere ? 'on' : 'off', 'a file'] as const],
      } as const;
      onFacts({ ...facts, checks: facts.checks.map(([...check]) => check) }, 0);
    };
    look();
    this.#timer = setInterval(look, lookEveryMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

const lastByteMs = new Map<string, number>();

/** Says which tunnel it is, then carries bytes. Resolves with the first that came back. */
async function keepBusy(tunnel: Tunnel, everyMs: number): Promise<void> {
  const stream = tunnel.openStream();
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const sending: { timer?: NodeJS.Timeout } = {};
  const stop = (): void => clearInterval(sending.timer);
  stream.attach({
    onData: (chunk) => {
      lastByteMs.set(tunnel.id, Date.now());
      stream.consumed(chunk.length);
      resolve(undefined);
    },
    onEnd: stop,
    onReset: stop,
    onWritable: () => undefined,
  });
  stream.write(Buffer.from(`${tunnel.id}\n`));
  await promise;
  sending.timer = setInterval(() => {
    if (!stream.isOver) stream.write(Buffer.from('.'));
  }, everyMs);
}

const agents: Agent[] = [];
let open = 0;
for (const home of homes) {
  const profile = await openProfile(undefined, { ZTNA_HOME: home });
  const identity = await loadIdentity(profile.dir);
  if (!identity) throw new Error(`${home} is not enrolled`);
  const agent = await Agent.start({ profile, identity, logger, posture: new MarkPosture() });
  agents.push(agent);
  for (let i = 0; i < Number(each); i++) {
    const tunnel = await agent.openTunnel(await agent.requestPermit(app));
    await tunnel.accepted;
    await keepBusy(tunnel, open < Number(fast) ? fastEveryMs : slowEveryMs);
    open += 1;
  }
}
console.log(`ready ${open}`);
const lines = createInterface({ input: process.stdin });
lines.on('line', () => {
  console.log(JSON.stringify(Object.fromEntries(lastByteMs)));
});
lines.once('close', () => {
  void Promise.all(agents.map((agent) => agent.stop())).then(() => process.exit(0));
});
