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
