import { Fleet, type FleetOptions } from './fleet.ts';
import { Database } from './database.ts';
import { Network } from './network.ts';
import { Traffic } from './traffic.ts';
import type { Run } from './scenario.ts';

/** A network with a fleet in it and traffic beside it. */
export interface Rig {
  readonly network: Network;
  readonly fleet: Fleet;
  readonly traffic: Traffic;
  /** The store, where it is a server of its own. */
  readonly database: Database | undefined;
}

export interface RigOptions extends Omit<FleetOptions, 'target' | 'network' | 'say' | 'store'> {
  readonly onPostgres?: boolean;
}

/** Builds a rig for the time of `use`, and removes it whatever happens. */
export async function withRig(
  run: Run,
  { onPostgres = false, ...options }: RigOptions,
  use: (rig: Rig) => Promise<void>,
): Promise<void> {
  const network = await Network.start();
  let traffic: Traffic | undefined;
  let fleet: Fleet | undefined;
  let database: Database | undefined;
  try {
    const appPlace = await network.place('app');
    traffic = await Traffic.start(appPlace);
    const target = `tcp://${appPlace.host}:${traffic.appPort}`;
    if (onPostgres) database = await Database.start();
    const store = database ? { store: database.url } : {};
    const logs = run.logs === undefined ? {} : { logs: run.logs };
    fleet = await Fleet.start({ ...options, ...store, ...logs, target, network });
    run.say('the fleet is up');
    await use({ network, fleet, traffic, database });
  } finally {
    await fleet?.stop();
    await database?.remove();
    await traffic?.stop();
    await network.stop();
  }
}
