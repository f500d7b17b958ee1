import { setTimeout as delay } from 'node:timers/promises';
import { LiveFlow } from '../live-flow.ts';
import { findChild, signalProcess } from '../program-tree.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

/** One second between verifications makes a lease of five. */
const relayConfig = { verification: '{ interval: 1s }' };
const leaseMs = 5_000;

/** What enforcing takes on top: a tick, and this machine's load. */
const slackMs = 750;

/** The control plane decides nothing any more, and nobody tells the enforcers. */
export const controlPlaneFrozen: Scenario = {
  name: 'control-plane-frozen',
  isPatient: true,
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1, relayConfig }, async (rig) => {
      const { fleet } = rig;
      const live = await LiveFlow.open(rig, { intervalMs: 20 });
      const other = await fleet.enrol();
      const pid = findChild(fleet.first.program, 'control-plane/main');
      if (pid === undefined) throw new Error('the control plane process was not found');
      signalProcess(pid, 'SIGSTOP');
      const frozenAtMs = Date.now();
      const refused = await fleet.ztna(other, 'connect', 'app', '--listen', '0', '--json');
      await delay(Math.max(0, frozenAtMs + leaseMs + 2_000 - Date.now()));
      const olderMs = (await live.lastAtAppMs()) - frozenAtMs;
      const bound = `no byte under a decision older than the lease of ${leaseMs / 1_000} s`;
      run.check(
        bound,
        `last byte ${olderMs} ms after the last decision`,
        olderMs <= leaseMs + slackMs,
      );
      const code = /ERR_[A-Z_]+/.exec(refused.stderr)?.[0];
      run.check(
        'new tunnels refused with a clear code',
        `${code ?? refused.stderr} (exit ${refused.code})`,
        code !== undefined && refused.code === 3,
      );
      signalProcess(pid, 'SIGCONT');
      run.checkTime('moves again ≤ 10 s after it is back', await live.untilMoves(), 10_000);
      await live.checkWhole(run);
    }),
};

/** A user is revoked while the path is out, and the path comes back. */
export const revokedDuringOutage: Scenario = {
  name: 'revoked-during-outage',
  isPatient: true,
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1, relayConfig }, async (rig) => {
      const { fleet, traffic } = rig;
      const live = await LiveFlow.open(rig, { intervalMs: 20 });
      const pid = findChild(fleet.first.program, 'data-plane/main');
      if (pid === undefined) throw new Error('the data plane process was not found');
      signalProcess(pid, 'SIGSTOP');
      const stoppedAtMs = Date.now();
      await delay(500);
      await fleet.admin(['revoke', 'user', live.machine.user, '--reason', 'left_company']);
      await delay(Math.max(0, stoppedAtMs + leaseMs + 2_000 - Date.now()));
      signalProcess(pid, 'SIGCONT');
      const { code } = await Promise.race([
        live.program.ended,
        delay(60_000, { code: null, signal: null }),
      ]);
      run.check('the tunnel ends for good: exit 7', `exit ${code}`, code === 7);
      const outcome = await traffic.outcome(live.flow, 10_000);
      const lateMs = (outcome.app?.lastAtMs ?? 0) - stoppedAtMs;
      run.check(
        'no byte after the revocation',
        `last byte ${lateMs} ms after the outage began`,
        lateMs <= leaseMs + slackMs,
      );
      const ends = [outcome.client.end, outcome.app?.end];
      run.check(
        'both applications see a reset',
        ends.join(', '),
        ends.every((end) => end === 'reset'),
      );
      const rows = await fleet.list('tunnel');
      const states = rows.map(({ state }) => String(state)).filter((state) => state !== 'closed');
      run.check('no tunnel is left at the control plane', states.length, states.length === 0);
    }),
};
