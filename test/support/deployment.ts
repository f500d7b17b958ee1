import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { callAdmin } from '../../relay/cli/admin-client.ts';
import {
  launchers,
  mustRun,
  RunningProgram,
  runProgram,
  type Commands,
  type Finished,
  type ProgramOptions,
} from './program.ts';

/** One private app behind the connector: its name and where the connector dials it. */
export interface DeployedApp {
  readonly name: string;
  readonly target: string; // tcp://host:port
  /** `off`: the connector dials it for clients alone. */
  readonly health?: 'off';
}

/** The arguments of `ztna-connector run` that name the apps; what they cannot say goes into a file in `dir`. */
export async function nameApps(dir: string, apps: readonly DeployedApp[]): Promise<string[]> {
  const unchecked = apps.filter(({ health }) => health === 'off');
  if (unchecked.length > 0) {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const lines = unchecked.map(
      ({ name, target }) => `  ${name}: { target: "${target}", health: off }`,
    );
    await writeFile(join(dir, 'connector.yaml'), ['apps:', ...lines, ''].join('\n'));
  }
  const checked = apps.filter((app) => !unchecked.includes(app));
  return checked.flatMap(({ name, target }) => ['--app', `${name}=${target}`]);
}

export interface DeploymentOptions {
  readonly apps: readonly DeployedApp[];
  /** What to run; by default this checkout's launchers. */
  readonly commands?: Commands;
  /** True: a guess at a password costs as much as it does in production, not a thousandth of it. */
  readonly isGuessDear?: boolean;
  /** `postgres://…`; else SQLite. */
  readonly storeUrl?: string;
  /** Cedar policy files by name; by default the group `staff` may reach every app. */
  readonly policies?: Readonly<Record<string, string>>;
  /** Lines put over the relay.yaml that `init` wrote: `key: value` pairs of its top level. */
  readonly relayConfig?: Readonly<Record<string, string>>;
  readonly user?: string;
  /** Wraps the relay's port in a link and answers the link's own; asked once for the connector, once for each machine. */
  readonly link?: (port: number) => Promise<number>;
  /** Network namespaces that relay and connector run in, and the relay's address there; by default all is on loopback. */
  readonly places?: {
    readonly relay: string;
    readonly connector: string;
    readonly relayHost: string;
  };
  /** The relay's host in its URL, where that is none that a name server knows. */
  readonly urlHost?: string;
  /** What the directory of all state is called, before its random part. */
  readonly dirPrefix?: string;
  readonly onStep?: (step: string) => void;
  /** Variables that programs get besides their own; `machine` is for every `ztna` of an enrolled machine. */
  readonly env?: Readonly<Partial<Record<'relay' | 'connector' | 'machine', Environment>>>;
  /** More arguments of `ztna-connector run`. */
  readonly connectorArgs?: readonly string[];
}

type Environment = Readonly<Record<string, string>>;

/** Has a relay of this checkout take the stand-in before anything of its own. */
const cheapPasswords: Environment = {
  NODE_OPTIONS: `--import=${new URL('cheap-passwords.ts', import.meta.url).href}`,
};
const invitationMs = 3_600_000;

const openPolicy =
  '@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource);';

/** A part of what `ztna-connector status` tells. */
export interface ConnectorSummary {
  readonly tunnels: number;
  readonly detached: number;
  readonly relays: readonly { readonly id: string; readonly state: string }[];
}

/** An enrolled and signed-in machine. */
export interface Machine {
  readonly home: string;
  readonly env: Readonly<Record<string, string>>;
  /** Runs `ztna …` to its end. */
  ztna(...args: string[]): Promise<Finished>;
  /** Starts `ztna …` and leaves it running. */
  start(...args: string[]): RunningProgram;
}

/**
 * A whole deployment made of the real programs on loopback: relay, connector and enrolled machines, each a process
 * of its own, all state in one temporary directory. `stop()` ends every process and removes the directory.
 */
export class Deployment {
  readonly dir: string;
  readonly host: string;
  readonly url: string;
  readonly port: number;
  readonly relayDir: string;
  readonly connectorDir: string;
  readonly options: DeploymentOptions;
  readonly commands: Commands;
  relay!: RunningProgram;
  connector!: RunningProgram;
  readonly #running = new Set<RunningProgram>();
  #machines = 0;

  private constructor(dir: string, port: number, options: DeploymentOptions) {
    this.dir = dir;
    this.port = port;
    this.host = options.places?.relayHost ?? '127.0.0.1';
    this.url = `https://${options.urlHost ?? this.host}:${port}`;
    this.relayDir = join(dir, 'relay');
    this.connectorDir = join(dir, 'connector');
    this.options = options;
    this.commands = options.commands ?? launchers;
  }

  /** Everything up to a connector that serves the apps and a policy that is active. */
  static async start(options: DeploymentOptions): Promise<Deployment> {
    const dir = await mkdtemp(join(tmpdir(), options.dirPrefix ?? 'ztna-test-'));
    const deployment = new Deployment(dir, await freePort(), options);
    try {
      await deployment.#begin();
    } catch (error) {
      await deployment.stop();
      throw error;
    }
    return deployment;
  }

  async #begin(): Promise<void> {
    const { options } = this;
    const say = options.onStep ?? (() => undefined);
    say('relay: init');
    const store = options.storeUrl === undefined ? [] : ['--store', options.storeUrl];
    await this.admin('init', '--url', this.url, ...store);
    const config = join(this.relayDir, 'relay.yaml');
    await overlayYaml(config, {
      listen: `"${this.host}:${this.port}"`,
      adminListen: '127.0.0.1:0',
      ...options.relayConfig,
    });
    say('relay: run');
    await this.startRelay();
    say('policy: apply');
    const files = options.policies ?? { 'staff.cedar': openPolicy };
    if (this.#isOwn) await this.ask('policy.apply', { files, dryRun: false });
    else await this.applyPolicies(files);
    say('connector: invite and run');
    const apps = options.apps.map(({ name }) => name);
    const code = this.#isOwn
      ? await this.#invite('connector', { name: 'local', apps, uses: 1 })
      : await this.admin('invite', 'connector', 'local', ...apps.flatMap((app) => ['--app', app]));
    await this.startConnector(code.trim());
  }

  /** Starts `ztna-relay run` and waits until it is ready. */
  async startRelay(): Promise<void> {
    this.relay = this.#track(
      new RunningProgram(this.commands.relay, ['run', '--dir', this.relayDir], {
        ...this.#with({ ...this.relayEnv, ...this.options.env?.relay }),
        place: this.options.places?.relay,
      }),
    );
    await this.relay.line(/^ready$/);
  }

  /** What every relay of this deployment that hashes passwords runs with. */
  get relayEnv(): Environment {
    return this.#isOwn && this.options.isGuessDear !== true ? cheapPasswords : {};
  }

  /** How many tunnels the connector keeps, how many of them without a path, and how it stands with each relay. */
  async connectorStatus(): Promise<ConnectorSummary> {
    const args = ['status', '--dir', this.connectorDir, '--json'];
    const text = await mustRun(this.commands.connector, args, this.#with());
    const { tunnels, detached, relays } = JSON.parse(text) as ConnectorSummary;
    return { tunnels, detached, relays };
  }

  /** Starts `ztna-connector run`, enrolling with `code` the first time, and waits until it is ready. */
  async startConnector(code?: string): Promise<void> {
    this.connector = await this.runConnector(this.connectorDir, code);
  }

  /** One more connector of the same site, enrolled and ready. */
  async addConnector(name: string): Promise<{ program: RunningProgram; dir: string }> {
    const code = await this.admin('invite', 'connector', name, '--site', 'local');
    const dir = join(this.dir, name);
    return { program: await this.runConnector(dir, code.trim()), dir };
  }

  /** Starts `ztna-connector run` from `dir`, enrolling with `code` if there is one, and waits until it is ready. */
  async runConnector(dir: string, code?: string): Promise<RunningProgram> {
    const enrolment = `${dir}.code`;
    if (code !== undefined) await writeFile(enrolment, code, { mode: 0o600 });
    const connector = this.#track(
      new RunningProgram(
        this.commands.connector,
        [
          'run',
          '--dir',
          dir,
          ...(code === undefined ? [] : ['--enroll', `file:${enrolment}`]),
          ...(await nameApps(dir, this.options.apps)),
          ...(this.options.connectorArgs ?? []),
        ],
        {
          ...this.#with({ ...(await this.#linkEnv()), ...this.options.env?.connector }),
          place: this.options.places?.connector,
        },
      ),
    );
    await connector.line(/^ready$/);
    return connector;
  }

  /** What the relay answers an administration command, without a program in between: for what is asked over and over. */
  async ask(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    return callAdmin(this.relayDir, command, args);
  }

  /** Runs an administration command that must succeed; answers its standard output. */
  async admin(...args: string[]): Promise<string> {
    return mustRun(this.commands.relay, [...args, '--dir', this.relayDir], this.#with());
  }

  /** Runs an administration command that may fail. */
  async tryAdmin(...args: string[]): Promise<Finished> {
    return runProgram(this.commands.relay, [...args, '--dir', this.relayDir], this.#with());
  }

  /** Applies the given policy files as the whole policy. */
  async applyPolicies(policies: Readonly<Record<string, string>>): Promise<void> {
    const dir = await mkdtemp(join(this.dir, 'policies-'));
    for (const [name, text] of Object.entries(policies)) await writeFile(join(dir, name), text);
    await this.admin('policy', 'apply', dir);
  }

  /** Whether these are the programs of this checkout: preparations are asked of its relay without a program in between. */
  get #isOwn(): boolean {
    return this.options.commands === undefined;
  }

  async #invite(kind: string, args: Record<string, unknown>): Promise<string> {
    const answer = await this.ask(`invite.${kind}`, { ttlMs: invitationMs, ...args });
    return (answer as { readonly code: string }).code;
  }

  /** Invites `user` into the groups and enrols a machine for it, which signs it in. */
  async enrol(
    user = this.options.user ?? 'alice',
    groups: readonly string[] = ['staff'],
  ): Promise<Machine> {
    const code = this.#isOwn
      ? await this.#invite('user', { name: user, groups })
      : await this.admin('invite', 'user', user, ...groups.flatMap((group) => ['--group', group]));
    const machine = this.machine(await this.#linkEnv());
    await mustRun(this.commands.ztna, ['enroll', '-', '--password-stdin'], {
      env: machine.env,
      input: `${code.trim()}\n${passwordOf(user)}\n`,
    });
    return machine;
  }

  /** A machine with empty state. */
  machine(extraEnv: Readonly<Record<string, string>> = {}): Machine {
    const home = join(this.dir, `machine-${++this.#machines}`);
    const { ztna } = this.commands;
    const { env } = this.#with({ ZTNA_HOME: home, ...this.options.env?.machine, ...extraEnv });
    return {
      home,
      env,
      ztna: (...args) => runProgram(ztna, args, { env }),
      start: (...args) => this.#track(new RunningProgram(ztna, args, { env })),
    };
  }

  /** Starts `ztna connect APP --json` on a free port and waits for its tunnel; answers the local port. */
  async connect(machine: Machine, app: string): Promise<{ program: RunningProgram; port: number }> {
    const program = machine.start('connect', app, '--listen', '0', '--json');
    const { address } = await program.event('listening');
    await program.event('open');
    return { program, port: Number(/:(\d+)$/.exec(String(address))?.[1]) };
  }

  async #linkEnv(): Promise<Readonly<Record<string, string>>> {
    if (!this.options.link) return {};
    return { ZTNA_RELAY_ADDRESS: `127.0.0.1:${await this.options.link(this.port)}` };
  }

  /** The variables of the installation, with more over them. */
  #with(env: Environment = {}): { readonly env: Environment } & ProgramOptions {
    return { env: { ...this.commands.env, ...env } };
  }

  #track(program: RunningProgram): RunningProgram {
    this.#running.add(program);
    void program.ended.then(() => this.#running.delete(program));
    return program;
  }

  /** Everything that the programs of this deployment wrote to their terminals and kept running for. */
  transcript(): string {
    return [this.relay, this.connector].map((program) => program.transcript()).join('\n');
  }

  async stop(): Promise<void> {
    // Clients first: a relay that goes away would make them redial.
    for (const program of [...this.#running].reverse()) await program.stop();
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** A password that the rules accept, one per user, so that tests can look for it in logs. */
export function passwordOf(user: string): string {
  return `correct-horse-${user}-battery`;
}

/** A port that was free a moment ago, on loopback. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address && typeof address === 'object') resolve(address.port);
        else reject(new Error('no address'));
      });
    });
  });
}

/** Puts top-level `key: value` lines over those of a file. */
export async function overlayYaml(
  path: string,
  values: Readonly<Record<string, string>>,
): Promise<void> {
  const kept = (await readFile(path, 'utf8'))
    .split('\n')
    .filter((line) => !Object.keys(values).some((key) => line.startsWith(`${key}:`)));
  const added = Object.entries(values).map(([key, value]) => `${key}: ${value}`);
  await writeFile(path, [...kept, ...added, ''].join('\n'), { mode: 0o600 });
}
