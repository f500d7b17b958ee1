import { createWriteStream, mkdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { callAdmin } from '../../relay/cli/admin-client.ts';
import { onExit } from './clean-up.ts';
import type { Network } from './network.ts';
import { type Place } from './network.ts';
import type { LinkShape } from './packet-link.ts';
import { signalTree } from './program-tree.ts';
import { eventually } from './patience.ts';
import { Worker } from './worker.ts';
import { run } from '../support/namespaces.ts';
import { freePort, overlayYaml, passwordOf } from '../support/deployment.ts';
import {
  launchers,
  mustRun,
  RunningProgram,
  runProgram,
  type Finished,
} from '../support/program.ts';

/** `full` holds the deployment's keys; `joined` is a further control plane and data plane; `data-plane` decides nothing. */
export type RelayKind = 'full' | 'joined' | 'data-plane';

export interface FleetOptions {
  /** The first is the one that was set up first, and `full`. */
  readonly relays: readonly RelayKind[];
  readonly connectors: number;
  /** Where the app is, as connectors see it. */
  readonly target: string;
  /** `sqlite`, or the URL of a database. */
  readonly store?: string;
  readonly network: Network;
  /** Lines over relay.yaml. */
  readonly relayConfig?: Readonly<Record<string, string>>;
  /** Links of places, by name, that pass through user space. */
  readonly links?: Readonly<Record<string, LinkShape>>;
  /** Variables for the programs at a place, by its name. */
  readonly env?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** A file system of that size for the state of each relay that holds keys; takes root. */
  readonly relayDiskMib?: number;
  readonly say?: (line: string) => void;
  /** Where every program's lines are written, a file each. */
  readonly logs?: string;
}

export interface Relay {
  readonly kind: RelayKind;
  readonly place: Place;
  readonly dir: string;
  readonly port: number;
  readonly url: string;
  readonly adminPort: number;
  program: RunningProgram;
}

export interface Connector {
  readonly name: string;
  readonly place: Place;
  readonly dir: string;
  program: RunningProgram;
}

/** An enrolled machine. */
export interface Machine {
  readonly user: string;
  readonly place: Place;
  readonly home: string;
}

export const appName = 'app';
const site = 'site';
const policy = '@id("staff") permit (principal, action == Action::"connect", resource);';

/**
 * A whole deployment of the real programs with any number of relays, connectors and machines, each at a place of its own.
 * `stop()` ends all of them and removes the directory that holds their state.
 */
export class Fleet {
  readonly dir: string;
  readonly network: Network;
  readonly relays: Relay[] = [];
  readonly connectors: Connector[] = [];
  readonly machines: Machine[] = [];
  readonly #options: FleetOptions;
  readonly #mounted: string[] = [];
  readonly #running = new Set<RunningProgram>();
  readonly #forget: () => void;
  #stopping: Promise<void> | undefined;

  private constructor(dir: string, options: FleetOptions) {
    this.dir = dir;
    this.network = options.network;
    this.#options = options;
    this.#forget = onExit(() => this.stop());
  }

  /** Everything up to connectors that serve the app, and a policy that lets everybody reach it. */
  static async start(options: FleetOptions): Promise<Fleet> {
    const fleet = new Fleet(await mkdtemp(join(tmpdir(), 'ztna-faults-')), options);
    try {
      for (const [index, kind] of options.relays.entries()) await fleet.#addRelay(index, kind);
      for (let index = 0; index < options.connectors; index++) await fleet.#addConnector(index);
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  get first(): Relay {
    const [relay] = this.relays;
    if (!relay) throw new Error('this fleet has no relay');
    return relay;
  }

  /** Runs an administration command that must succeed, by default at the first relay. */
  async admin(args: readonly string[], relay = this.first): Promise<string> {
    return mustRun(launchers.relay, [...args, '--dir', relay.dir]);
  }

  async tryAdmin(args: readonly string[], relay = this.first): Promise<Finished> {
    return runProgram(launchers.relay, [...args, '--dir', relay.dir]);
  }

  /** Runs an administration command over the relay's socket. Throws its refusal, or that nobody answers. */
  async command(
    name: string,
    args: Record<string, unknown> = {},
    relay = this.first,
  ): Promise<unknown> {
    return callAdmin(relay.dir, name, args);
  }

  /** A number of the relay's `/metrics`: the sum of the lines of that name. Throws when the relay does not answer. */
  async metric(name: string, relay = this.first): Promise<number> {
    const fetchIt = `fetch('http://127.0.0.1:${relay.adminPort}/metrics').then((r) => r.text()).then(console.log)`;
    const text = await mustRun(process.execPath, ['-e', fetchIt], {
      place: relay.place.namespace,
      timeoutMs: 10_000,
    });
    const lines = text.split('\n').filter((line) => line.startsWith(name));
    if (lines.length === 0) throw new Error(`${name} is not among the metrics`);
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  /** Rows of a list command. */
  async list(kind: string, relay = this.first): Promise<Record<string, unknown>[]> {
    const lines = (await this.admin([kind, 'list', '--json'], relay)).split('\n').filter(Boolean);
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Starts a relay that is down and waits until it is ready. */
  async startRelay(relay: Relay): Promise<void> {
    const dataPlane = relay.kind === 'data-plane' ? ['--data-plane', ...listenArgs(relay)] : [];
    relay.program = this.#spawn(
      launchers.relay,
      ['run', '--dir', relay.dir, ...dataPlane],
      relay.place,
    );
    await relay.program.line(/^ready$/, 0, 60_000);
  }

  /** Ends a relay and all of its processes as a power cut would, and waits until it is gone. */
  async killRelay(relay: Relay): Promise<void> {
    signalTree(relay.program, 'SIGKILL');
    await relay.program.ended;
  }

  async startConnector(connector: Connector, enrolment: readonly string[] = []): Promise<void> {
    const args = ['run', '--dir', connector.dir, '--app', `${appName}=${this.#options.target}`];
    connector.program = this.#spawn(launchers.connector, [...args, ...enrolment], connector.place);
    await connector.program.line(/^ready$/, 0, 60_000);
  }

  async connectorStatus(connector: Connector): Promise<Record<string, unknown>> {
    const args = ['status', '--dir', connector.dir, '--json'];
    return JSON.parse(await mustRun(launchers.connector, args)) as Record<string, unknown>;
  }

  /** Invites a user and enrols a machine for it, which signs it in. */
  async enrol(user = `user-${this.machines.length + 1}`, at = 'client-1'): Promise<Machine> {
    const code = await this.admin(['invite', 'user', user]);
    const place = await this.#place(at);
    const home = join(this.dir, `machine-${this.machines.length + 1}`);
    await mustRun(launchers.ztna, ['enroll', '-', '--password-stdin'], {
      env: { ...this.#options.env?.[at], ZTNA_HOME: home },
      input: `${code.trim()}\n${passwordOf(user)}\n`,
      place: place.namespace,
      timeoutMs: 120_000,
    });
    const machine = { user, place, home };
    this.machines.push(machine);
    return machine;
  }

  /**
   * Enrols machines at one place without asking the first relay, which holds the keys and is down meanwhile: seconds for
   * thousands. Each has a user of its own, signed in.
   */
  async enrolMany(count: number, at = 'client-1'): Promise<Machine[]> {
    const { first } = this;
    const place = await this.#place(at);
    const machines = Array.from({ length: count }, (_, index): Machine => {
      const user = `crowd-${index + 1}`;
      return { user, place, home: join(this.dir, user) };
    });
    await first.program.stop();
    const maker = new Worker('./device-maker.ts', undefined);
    try {
      const homes = machines.map(({ user, home }) => ({ user, home }));
      await maker.ask('make', { dir: first.dir, url: first.url, homes });
    } finally {
      await maker.stop();
    }
    await this.startRelay(first);
    await eventually(
      async () =>
        (await this.metric('ztna_app_connectors{')) === this.connectors.length || undefined,
      60_000,
    );
    this.machines.push(...machines);
    return machines;
  }

  /** Starts `ztna …` on a machine and leaves it running. */
  start(machine: Machine, ...args: string[]): RunningProgram {
    return this.#spawn(launchers.ztna, args, machine.place, { ZTNA_HOME: machine.home });
  }

  /** Runs `ztna …` on a machine to its end. */
  async ztna(machine: Machine, ...args: string[]): Promise<Finished> {
    const env = { ...this.#options.env?.[machine.place.name], ZTNA_HOME: machine.home };
    return runProgram(launchers.ztna, args, { env, place: machine.place.namespace });
  }

  /** Starts `ztna connect --json` on a free port and waits for its tunnel; answers the local port. */
  async connect(machine: Machine): Promise<{ program: RunningProgram; port: number }> {
    const program = this.start(machine, 'connect', appName, '--listen', '0', '--json');
    const { address } = await program.event('listening', 0, 60_000);
    await program.event('open', 0, 60_000);
    return { program, port: Number(/:(\d+)$/.exec(String(address))?.[1]) };
  }

  /** Ends every process, clients first, and removes all state. Safe to call twice. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#stop());
  }

  async #stop(): Promise<void> {
    const running = [...this.#running].reverse();
    for (const program of running) {
      signalTree(program, 'SIGCONT');
      signalTree(program, 'SIGKILL');
    }
    for (const program of running) await program.ended;
    for (const dir of this.#mounted) await run('umount', '-l', dir);
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
    this.#forget();
  }

  async #place(name: string): Promise<Place> {
    return this.network.place(name, this.#options.links?.[name]);
  }

  #spawn(
    file: string,
    args: readonly string[],
    place: Place,
    more: Readonly<Record<string, string>> = {},
  ): RunningProgram {
    if (this.#stopping) throw new Error('this fleet has been stopped');
    const { logs } = this.#options;
    const level = logs === undefined ? {} : { ZTNA_LOG_LEVEL: 'info' };
    const env = { ...level, ...this.#options.env?.[place.name], ...more };
    const program = new RunningProgram(file, args, { env, place: place.namespace });
    if (logs !== undefined) keepLines(program, logs, place.name);
    this.#running.add(program);
    void program.ended.then(() => this.#running.delete(program));
    return program;
  }

  async #addRelay(index: number, kind: RelayKind): Promise<void> {
    const { store, relayConfig, say } = this.#options;
    const name = `relay-${index + 1}`;
    say?.(`${name}: ${kind}`);
    const place = await this.#place(name);
    const dir = join(this.dir, name);
    const port = place.namespace === undefined ? await freePort() : 443;
    const adminPort = place.namespace === undefined ? await freePort() : 9080;
    const url = `https://${place.host}:${port}`;
    const settings = { listen: `${place.host}:${port}`, adminListen: `127.0.0.1:${adminPort}` };
    const enrolment: string[] = [];
    if (this.#options.relayDiskMib !== undefined)
      await this.#mount(dir, this.#options.relayDiskMib);
    if (kind === 'full') {
      const where = store === undefined ? [] : ['--store', store];
      await mustRun(launchers.relay, ['init', '--dir', dir, '--url', url, ...where], {
        place: place.namespace,
      });
      await overlayYaml(join(dir, 'relay.yaml'), { ...settings, ...relayConfig });
    } else if (kind === 'joined') {
      const code = await this.admin(['invite', 'relay', name, '--url', url, '--control-plane']);
      const where = store === undefined ? [] : ['--store', store];
      await mustRun(launchers.relay, ['init', '--dir', dir, '--join', '-', ...where], {
        place: place.namespace,
        input: code,
      });
      await overlayYaml(join(dir, 'relay.yaml'), { ...settings, ...relayConfig });
    } else {
      const code = await this.admin(['invite', 'relay', name, '--url', url]);
      enrolment.push('--data-plane', '--enroll', await this.#secretFile(name, code));
      enrolment.push(...listenArgs({ place, port, adminPort }));
    }
    const program = this.#spawn(launchers.relay, ['run', '--dir', dir, ...enrolment], place);
    this.relays.push({ kind, place, dir, port, url, adminPort, program });
    await program.line(/^ready$/, 0, 60_000);
    if (index === 0) await this.#applyPolicy();
  }

  async #mount(dir: string, mib: number): Promise<void> {
    await mkdir(dir, { mode: 0o700 });
    await run('mount', '-t', 'tmpfs', '-o', `size=${mib}m,mode=0700`, 'tmpfs', dir);
    this.#mounted.push(dir);
  }

  async #applyPolicy(): Promise<void> {
    const dir = join(this.dir, 'policies');
    await mkdir(dir);
    await writeFile(join(dir, 'staff.cedar'), policy);
    await this.admin(['policy', 'apply', dir]);
    await this.admin(['site', 'add', site]);
    await this.admin(['app', 'add', appName, '--site', site]);
  }

  async #addConnector(index: number): Promise<void> {
    const name = `connector-${index + 1}`;
    this.#options.say?.(name);
    const code = await this.admin(['invite', 'connector', name, '--site', site]);
    const place = await this.#place(name);
    const connector = {
      name,
      place,
      dir: join(this.dir, name),
      program: undefined as unknown as RunningProgram,
    };
    await this.startConnector(connector, ['--enroll', await this.#secretFile(name, code)]);
    this.connectors.push(connector);
  }

  async #secretFile(name: string, secret: string): Promise<string> {
    const path = join(this.dir, `${name}.code`);
    await writeFile(path, secret, { mode: 0o600 });
    return `file:${path}`;
  }
}

let kept = 0;

/** Writes down what a program says, with the time at which it said it. */
function keepLines(program: RunningProgram, logs: string, place: string): void {
  mkdirSync(logs, { recursive: true });
  const file = createWriteStream(join(logs, `${String(++kept).padStart(3, '0')}-${place}.log`));
  for (const stream of [program.child.stdout, program.child.stderr])
    createInterface({ input: stream }).on('line', (line) => {
      file.write(`${new Date().toISOString()} ${line}\n`);
    });
  void program.ended.then(() => file.end());
}

/** What stands in relay.yaml where there is one. */
function listenArgs({
  place,
  port,
  adminPort,
}: Pick<Relay, 'place' | 'port' | 'adminPort'>): string[] {
  return ['--listen', `${place.host}:${port}`, '--admin-listen', `127.0.0.1:${adminPort}`];
}
