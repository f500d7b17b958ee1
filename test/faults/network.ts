/**
 * Where the programs of a fleet run: each in a network namespace of its own behind one router, or, without root, all on
 * loopback, where no packet can be kept from anybody.
 *
 *   relay-1 ──┐
 *   relay-2 ──┤
 *   connector-1 ─ router ── client-1
 *   store ────┘
 *
 * Nothing leaves them: addresses come from the range set aside for benchmarks (RFC 2544).
 */
import { readdirSync } from 'node:fs';
import { onExit } from './clean-up.ts';
import { PacketLink, type LinkShape } from './packet-link.ts';
import { makePlace, removePlace, run, setInPlace } from '../support/namespaces.ts';

/** Where one program runs. */
export interface Place {
  readonly name: string;
  /** The network namespace; undefined on loopback. */
  readonly namespace: string | undefined;
  readonly host: string;
}

const namePrefix = 'ztna-faults-';

/** Why packets cannot be kept from anybody here, or undefined when they can. */
export function missingNetwork(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces are a feature of Linux';
  if (process.getuid?.() !== 0) return 'making network namespaces takes root';
  return undefined;
}

/** Removes the namespaces of runs that were killed. */
export async function removeLeftPlaces(): Promise<void> {
  if (missingNetwork() !== undefined) return;
  const names = (await run('ip', 'netns', 'list')).split('\n').map((line) => line.split(' ')[0]);
  const running = new Set(readdirSync('/proc'));
  for (const name of names) {
    const pid = new RegExp(`^${namePrefix}(\\d+)-`).exec(name ?? '')?.[1];
    if (name !== undefined && pid !== undefined && !running.has(pid)) await removePlace(name);
  }
}

let networks = 0;

export class Network {
  readonly isReal: boolean;
  readonly #prefix = `${namePrefix}${process.pid}-${++networks}-`;
  readonly #router = `${this.#prefix}router`;
  readonly #places = new Map<string, Place>();
  readonly #links = new Map<string, PacketLink>();
  readonly #made: string[] = [];
  readonly #forget: () => void;
  #stopping: Promise<void> | undefined;

  private constructor(isReal: boolean) {
    this.isReal = isReal;
    this.#forget = onExit(() => this.stop());
  }

  /** Namespaces where they can be had. */
  static async start(): Promise<Network> {
    const network = new Network(missingNetwork() === undefined);
    if (!network.isReal) return network;
    await network.#make(network.#router);
    await setInPlace(network.#router, 'ip_forward');
    return network;
  }

  /**
   * A place of that name, made at first sight. With `shape`, its only link passes through user space, where packets can be
   * delayed, lost and held to a rate.
   */
  async place(name: string, shape?: LinkShape): Promise<Place> {
    const known = this.#places.get(name);
    if (known) return known;
    if (!this.isReal) {
      const place = { name, namespace: undefined, host: '127.0.0.1' };
      this.#places.set(name, place);
      return place;
    }
    const namespace = `${this.#prefix}${name}`;
    const index = this.#places.size + 1;
    const [own, far] = [`198.18.${index}.2`, `198.18.${index}.1`];
    const place = { name, namespace, host: own };
    this.#places.set(name, place);
    await this.#make(namespace);
    const device = `to-${index}`;
    if (shape) {
      const link = await PacketLink.start({
        router: this.#router,
        place: namespace,
        routerDevice: device,
        placeDevice: 'to-router',
      });
      this.#links.set(name, link);
      link.shape(shape);
    } else {
      const peer = ['peer', 'name', device, 'netns', this.#router];
      await run('ip', '-n', namespace, 'link', 'add', 'to-router', 'type', 'veth', ...peer);
    }
    await this.#bringUp(namespace, 'to-router', own);
    await this.#bringUp(this.#router, device, far);
    await run('ip', '-n', namespace, 'route', 'add', 'default', 'via', far);
    return place;
  }

  /** What the place's link does to packets from now on. */
  shape(place: Place, shape: LinkShape): void {
    const link = this.#links.get(place.name);
    if (!link) throw new Error(`the link of ${place.name} does not pass through user space`);
    link.shape(shape);
  }

  /** Drops every packet from one place to another, without a word to anybody. Answers how to undo it. */
  async cut(from: Place, to: Place): Promise<() => Promise<void>> {
    const rule = ['from', from.host, 'to', to.host, 'blackhole', 'pref', '100'];
    const router = ['-n', this.#router, 'rule'];
    await run('ip', ...router, 'add', ...rule);
    return async () => {
      await run('ip', ...router, 'del', ...rule);
    };
  }

  /** Drops every packet between two places. */
  async part(one: Place, other: Place): Promise<() => Promise<void>> {
    const undo = [await this.cut(one, other), await this.cut(other, one)];
    return async () => {
      for (const heal of undo) await heal();
    };
  }

  /** Ends everything that runs in the places and removes them. Safe to call twice. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  async #stop(): Promise<void> {
    for (const link of this.#links.values()) await link.stop();
    for (const name of this.#made) await removePlace(name);
    this.#forget();
  }

  async #make(name: string): Promise<void> {
    await makePlace(name);
    this.#made.push(name);
  }

  async #bringUp(namespace: string, device: string, address: string): Promise<void> {
    await run('ip', '-n', namespace, 'address', 'add', `${address}/30`, 'dev', device);
    await run('ip', '-n', namespace, 'link', 'set', device, 'up');
  }
}
