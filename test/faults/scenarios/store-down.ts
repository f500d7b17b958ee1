import { setTimeout as delay } from 'node:timers/promises';
import { missingServer } from '../../support/postgresql.ts';
import { LiveFlow } from '../live-flow.ts';
import { millisecondsUntil } from '../patience.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

const relayConfig = { verification: '{ interval: 2s }' };
const leaseMs = 6_000;
const slackMs = 750;

/** The database server stops under the control plane and comes back. */
export const storeDown: Scenario = {
  name: 'store-down',
  isPatient: true,
  missing: missingServer,
  run: (run) =>
    withRig(
      run,
      { relays: ['full'], connectors: 1, relayConfig, onPostgres: true },
      async (rig) => {
        const { fleet, database } = rig;
        const live = await LiveFlow.open(rig);
        const other = await fleet.enrol();
        await database?.stop();
        const downAtMs = Date.now();
        const downMs = run.isQuick ? 15_000 : 60_000;
        const refused = await fleet.ztna(other, 'connect', 'app', '--listen', '0', '--json');
        const code = /ERR_[A-Z_]+/.exec(refused.stderr)?.[0];
        run.check(
          'new tunnels refused with a clear code',
          `${code ?? refused.stderr} (exit ${refused.code})`,
          code === 'ERR_RELAY_UNAVAILABLE' || code === 'ERR_RELAY_UNREACHABLE',
        );
        await delay(Math.max(0, downAtMs + downMs - Date.now()));
        const olderMs = (await live.lastAtAppMs()) - downAtMs;
        const bound = `live tunnels freeze at their lease of ${leaseMs / 1_000} s`;
        run.check(
          bound,
          `last byte ${olderMs} ms after the store went`,
          olderMs <= leaseMs + slackMs,
        );
        await database?.startAgain();
        const newTunnel = async (): Promise<boolean> => {
          const { program } = await fleet.connect(other);
          await program.stop();
          return true;
        };
        const [movesMs, openMs] = await Promise.all([
          live.untilMoves(),
          millisecondsUntil(newTunnel, 60_000),
        ]);
        run.checkTime('live tunnels back ≤ 10 s after', movesMs, 10_000);
        run.check(
          'new tunnels open again',
          Number.isFinite(openMs) ? 'open' : 'none',
          Number.isFinite(openMs),
        );
        run.checkTime('new tunnels ≤ 10 s after', openMs, 10_000);
        await live.checkWhole(run);
        const verified = await fleet.tryAdmin(['audit', 'verify']);
        run.check('audit chain verifies', verified.stderr.trim(), verified.code === 0);
      },
    ),
};
