import { setTimeout as delay } from 'node:timers/promises';
import { findChild, signalProcess, signalTree } from './program-tree.ts';
import type { Random } from './random.ts';
import type { Rig } from './rig.ts';

/** One thing done to a rig; it is over, and mended, when `run` returns. */
export interface Attack {
  readonly what: string;
  /** The connection of an app may die with it, since the process that holds its socket does. */
  readonly mayReset: boolean;
  readonly run: () => Promise<void>;
}

type Choice = (rig: Rig, random: Random) => Attack | undefined;

const killRelay: Choice = ({ fleet }, random) => {
  const relay = random.pick(fleet.relays);
  if (!relay) return undefined;
  const downMs = random.between(0, 3_000);
  return {
    what: `kill -9 of ${relay.place.name}`,
    mayReset: false,
    run: async () => {
      await fleet.killRelay(relay);
      await delay(downMs);
      await fleet.startRelay(relay);
    },
  };
};

const restartRelay: Choice = ({ fleet }, random) => {
  const relay = random.pick(fleet.relays);
  if (!relay) return undefined;
  return {
    what: `restart of ${relay.place.name}`,
    mayReset: false,
    run: async () => {
      await relay.program.stop();
      await fleet.startRelay(relay);
    },
  };
};

function ofChild(
  part: 'control-plane/main' | 'data-plane/main',
  signal: 'SIGKILL' | 'SIGSTOP',
): Choice {
  return ({ fleet }, random) => {
    const relays = fleet.relays.filter(
      ({ kind }) => kind !== 'data-plane' || part.startsWith('data'),
    );
    const relay = random.pick(relays);
    const frozenMs = random.between(1_000, 8_000);
    if (!relay) return undefined;
    return {
      what: `${signal} of the ${part.split('/')[0]} of ${relay.place.name}`,
      mayReset: false,
      run: async () => {
        const pid = findChild(relay.program, part);
        if (pid === undefined) return; // it is just being started again
        signalProcess(pid, signal);
        if (signal === 'SIGKILL') return;
        await delay(frozenMs);
        signalProcess(pid, 'SIGCONT');
      },
    };
  };
}

const killConnector: Choice = ({ fleet }, random) => {
  const connector = random.pick(fleet.connectors);
  if (!connector) return undefined;
  return {
    what: `kill -9 of ${connector.name}`,
    mayReset: true,
    run: async () => {
      signalTree(connector.program, 'SIGKILL');
      await connector.program.ended;
      await fleet.startConnector(connector);
    },
  };
};

const part: Choice = ({ fleet, network }, random) => {
  const [relay, connector] = [random.pick(fleet.relays), random.pick(fleet.connectors)];
  if (!relay || !connector || !network.isReal) return undefined;
  const way = random.pick(['one way', 'the other way', 'both ways']);
  const cutMs = random.between(2_000, 10_000);
  return {
    what: `${relay.place.name} and ${connector.name} parted ${way}`,
    mayReset: false,
    run: async () => {
      const heal =
        way === 'both ways'
          ? await network.part(relay.place, connector.place)
          : way === 'one way'
            ? await network.cut(relay.place, connector.place)
            : await network.cut(connector.place, relay.place);
      await delay(cutMs);
      await heal();
    },
  };
};

const stopDatabase: Choice = ({ database }, random) => {
  if (!database) return undefined;
  const downMs = random.between(500, 6_000);
  return {
    what: 'the database is away',
    mayReset: false,
    run: async () => {
      await database.stop();
      await delay(downMs);
      await database.startAgain();
    },
  };
};

const choices: readonly [Choice, ...Choice[]] = [
  killRelay,
  restartRelay,
  ofChild('control-plane/main', 'SIGKILL'),
  ofChild('control-plane/main', 'SIGSTOP'),
  ofChild('data-plane/main', 'SIGKILL'),
  ofChild('data-plane/main', 'SIGSTOP'),
  killConnector,
  part,
  stopDatabase,
];

/** Something to do to this rig. */
export function pickAttack(rig: Rig, random: Random): Attack {
  for (;;) {
    const attack = random.pick(choices)(rig, random);
    if (attack) return attack;
  }
}
