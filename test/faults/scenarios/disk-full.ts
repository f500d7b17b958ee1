import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LiveFlow } from '../live-flow.ts';
import { missingNetwork } from '../network.ts';
import { millisecondsUntil } from '../patience.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

async function fill(dir: string): Promise<string> {
  const path = join(dir, 'ballast');
  const file = await open(path, 'w');
  try {
    for (const bytes of [65_536, 512]) {
      const block = Buffer.alloc(bytes, 1);
      try {
        for (;;) await file.writeFile(block);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
  } finally {
    await file.close();
  }
  return path;
}

/** The file system of the relay's state has no room for one more record. */
export const diskFull: Scenario = {
  name: 'disk-full',
  isPatient: true,
  missing: missingNetwork,
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1, relayDiskMib: 16 }, async (rig) => {
      const { fleet } = rig;
      const live = await LiveFlow.open(rig);
      const other = await fleet.enrol();
      const ballast = await fill(fleet.first.dir);
      await delay(500);
      const refused = await fleet.ztna(other, 'connect', 'app', '--listen', '0', '--json');
      const code = /ERR_[A-Z_]+/.exec(refused.stderr)?.[0];
      const isRefused = code === 'ERR_RELAY_UNAVAILABLE' && refused.code !== 0;
      run.check(
        'no new tunnel without a record',
        `${code ?? refused.stderr} (exit ${refused.code})`,
        isRefused,
      );
      await delay(run.isQuick ? 2_000 : 30_000);
      await rm(ballast);
      const againMs = await millisecondsUntil(async () => {
        const { code: status } = await fleet.ztna(other, 'apps', '--json');
        if (status !== 0) return false;
        const { program } = await fleet.connect(other);
        await program.stop();
        return true;
      }, 60_000);
      run.check(
        'new tunnels once there is room',
        Number.isFinite(againMs) ? 'open' : 'none',
        Number.isFinite(againMs),
      );
      run.checkTime('new tunnels ≤ 10 s after there is room', againMs, 10_000);
      await live.checkWhole(run);
      const verified = await fleet.tryAdmin(['audit', 'verify']);
      run.check('audit chain verifies', verified.stderr.trim(), verified.code === 0);
    }),
};
