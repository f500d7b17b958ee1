import type { ClientReport } from './clients-worker.ts';
import { appName, type Fleet, type Machine } from './fleet.ts';
import { Worker } from './worker.ts';

const openEvents = new Set(['open', 'resumed', 'moved']);

/** Many clients, each with a tunnel and a local port, in a few processes. */
export class Crowd {
  readonly ports: number[] = [];
  readonly machines: Machine[] = [];
  readonly #workers: Worker[] = [];

  /** Enrols `machines` devices and opens `each` clients on each of them, `places` processes sharing the devices. */
  static async open(
    fleet: Fleet,
    size: { readonly machines: number; readonly each: number; readonly places?: number },
    say: (line: string) => void = () => undefined,
  ): Promise<Crowd> {
    const crowd = new Crowd();
    try {
      const places = size.places ?? 1;
      for (let i = 0; i < size.machines; i++)
        crowd.machines.push(await fleet.enrol(undefined, `client-${(i % places) + 1}`));
      say(`${size.machines} machines enrolled`);
      for (let place = 0; place < places; place++) {
        const machines = crowd.machines.filter((_, at) => at % places === place);
        crowd.#workers.push(new Worker('./clients-worker.ts', machines[0]?.place.namespace));
      }
      await Promise.all(
        crowd.#workers.map(async (worker, place) => {
          for (const { home } of crowd.machines.filter((_, at) => at % places === place)) {
            const details = { home, app: appName, count: size.each };
            crowd.ports.push(...(await worker.ask<number[]>('open', details)));
          }
        }),
      );
    } catch (error) {
      await crowd.kill();
      throw error;
    }
    say(`${crowd.ports.length} clients connected`);
    return crowd;
  }

  /**
   * Opens one client on each of `clients` machines that were enrolled without a relay, each with a connection to the app
   * that is held, from so many processes. The first relay is down for a moment.
   */
  static async openMany(
    fleet: Fleet,
    size: { readonly clients: number; readonly processes: number },
    say: (line: string) => void,
  ): Promise<Crowd> {
    const crowd = new Crowd();
    try {
      crowd.machines.push(...(await fleet.enrolMany(size.clients)));
      say(`${size.clients} machines enrolled`);
      await Promise.all(
        Array.from({ length: size.processes }, async (_, place) => {
          const machines = crowd.machines.filter((_, at) => at % size.processes === place);
          const worker = new Worker('./clients-worker.ts', machines[0]?.place.namespace);
          crowd.#workers.push(worker);
          const homes = machines.map(({ home }) => home);
          await worker.ask('openEach', { homes, app: appName, atOnce: 8 });
        }),
      );
    } catch (error) {
      await crowd.kill();
      throw error;
    }
    say(`${size.clients} clients connected`);
    return crowd;
  }

  /** The processes that the clients run in. */
  get pids(): number[] {
    return this.#workers.flatMap(({ child }) => child.pid ?? []);
  }

  async reports(): Promise<ClientReport[]> {
    return (
      await Promise.all(this.#workers.map((each) => each.ask<ClientReport[]>('snapshot')))
    ).flat();
  }

  /** How many have an open tunnel, by what they were told last. */
  async openCount(): Promise<number> {
    const reports = await this.reports();
    return reports.filter(({ event, error }) => error === null && openEvents.has(event)).length;
  }

  /** Closes every tunnel as Ctrl-C does. */
  async stop(): Promise<void> {
    for (const worker of this.#workers) await worker.ask('stop');
    await this.kill();
  }

  async kill(): Promise<void> {
    for (const worker of this.#workers) await worker.stop();
  }
}
