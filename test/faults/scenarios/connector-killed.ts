import type { Connector, Fleet, Machine } from '../fleet.ts';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually, millisecondsUntil } from '../patience.ts';
import { signalTree } from '../program-tree.ts';
import { withRig, type Rig } from '../rig.ts';
import type { Run, Scenario } from '../scenario.ts';
import { faultsOf } from '../traffic.ts';

/** The connector that holds the only tunnel. */
async function holderOf(fleet: Fleet): Promise<Connector> {
  const holder = await eventually(async () => {
    for (const connector of fleet.connectors)
      if (Number((await fleet.connectorStatus(connector))['tunnels']) > 0) return connector;
    return undefined;
  }, 10_000);
  if (!holder) throw new Error('no connector holds the tunnel');
  return holder;
}

/** Milliseconds from now until some connection opened from now on has had an answer from the app. */
async function untilNewConnection(
  { traffic }: Rig,
  machine: Machine,
  port: number,
): Promise<number> {
  const startedAtMs = Date.now();
  let throughMs = Number.POSITIVE_INFINITY;
  const tries: Promise<void>[] = [];
  while (!Number.isFinite(throughMs) && Date.now() - startedAtMs < 60_000) {
    const attempt = async (): Promise<void> => {
      const flow = await traffic.open(machine.place, port, { upBytes: 1, downBytes: 1 });
      if (faultsOf(await traffic.outcome(flow, 3_000)).length > 0) return;
      throughMs = Math.min(throughMs, Date.now() - startedAtMs);
    };
    tries.push(attempt().catch(() => undefined)); // one that fails is followed by another
    await delay(200);
  }
  await Promise.all(tries);
  return throughMs;
}

/** Ends or freezes the connector under a flow and looks at how the application learns it. */
async function loseConnector(run: Run, rig: Rig, signal: 'SIGKILL' | 'SIGSTOP'): Promise<void> {
  const { fleet, traffic } = rig;
  const how = signal === 'SIGKILL' ? 'kill -9' : 'frozen';
  const machine = await fleet.enrol();
  const { program, port } = await fleet.connect(machine);
  const flow = await traffic.open(machine.place, port);
  const connector = await holderOf(fleet);
  signalTree(connector.program, signal);
  const ended = (): Promise<boolean> =>
    traffic.atClients().then((flows) => flows.get(flow)?.end !== 'open');
  const isDead = signal === 'SIGKILL';
  const shownMs = isDead || !run.isQuick ? millisecondsUntil(ended, 120_000) : undefined;
  const againMs = await untilNewConnection(rig, machine, port);
  const resetMs = await shownMs;
  const seen = (await traffic.atClients()).get(flow);
  // One that only fell silent may come back: what hangs on it waits.
  run.check(
    `${how}: ${resetMs === undefined ? 'open, or ' : ''}a reset, never a clean end of file`,
    seen?.end ?? 'nothing',
    seen?.end === 'reset' || (resetMs === undefined && seen?.end === 'open'),
  );
  const violation = seen?.violation ?? null;
  run.check(`${how}: no byte wrong before it`, violation ?? 'none', violation === null);
  const withinMs = isDead ? 10_000 : 90_000;
  if (resetMs !== undefined) {
    run.checkTime(`${how}: reset shown within ${String(withinMs / 1_000)} s`, resetMs, withinMs);
  }
  if (isDead) run.checkTime(`${how}: new connection ≤ 2 s`, againMs, 2_000);
  else run.checkTime(`${how}: new connection ≤ 12 s`, againMs, 12_000);
  signalTree(connector.program, 'SIGCONT');
  if (isDead) await fleet.startConnector(connector);
  await program.stop();
}

export const connectorKilled: Scenario = {
  name: 'connector-killed',
  isPatient: true,
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 2 }, async (rig) => {
      await loseConnector(run, rig, 'SIGKILL');
      await loseConnector(run, rig, 'SIGSTOP');
    }),
};
