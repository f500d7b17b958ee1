import { Fleet, type FleetOptions } from './fleet.ts';
import { Network } from './network.ts';
import { Traffic } from './traffic.ts';
import type { Run } from './scenario.ts';

/** A network with a fleet in it and traffic beside it. */
export interface Rig {
  readonly network: Network;
  readonly fleet: Fleet;
  readonly traffic: Traffic;
}

/** Builds a rig for the time of `use`, and removes it whatever happens. */
export async function withRig(
  run: Run,
  options: Omit<FleetOptions, 'target' | 'network' | 'say'>,
  use: (rig: Rig) => Promise<void>,
): Promise<void> {
  const network = await Network.start();
  let traffic: Traffic | undefined;
  let fleet: Fleet | undefined;
  try {
    const appPlace = await network.place('app');
    traffic = await Traffic.start(appPlace);
    const target = `tcp://${appPlace.host}:${traffic.appPort}`;
    fleet = await Fleet.start({ ...options, target, network });
    run.say('the fleet is up');
    await use({ network, fleet, traffic });
  } finally {
    await fleet?.stop();
    await traffic?.stop();
    await network.stop();
  }
}
