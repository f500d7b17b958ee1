import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort, type Deployment } from './deployment.ts';
import { mustRun, RunningProgram } from './program.ts';

/** A relay that is a data plane alone, as a process of its own. */
export interface DataPlaneRelay {
  readonly name: string;
  readonly dir: string;
  readonly port: number;
  readonly url: string;
  /** Of probes and metrics. */
  readonly adminPort: number;
  program: RunningProgram;
  /** Starts it again from its directory, without a code. */
  restart(): Promise<void>;
}

/** Invites a data plane, enrols it and runs it until it is ready. Stop its program before the deployment. */
export async function addDataPlane(
  deployment: Deployment,
  name: string,
  env: Readonly<Record<string, string>> = {},
): Promise<DataPlaneRelay> {
  const port = await freePort();
  const adminPort = await freePort();
  const url = `https://127.0.0.1:${port}`;
  const dir = join(deployment.dir, name);
  const code = join(deployment.dir, `${name}.code`);
  await writeFile(code, await deployment.admin('invite', 'relay', name, '--url', url), {
    mode: 0o600,
  });
  const run = async (...more: string[]) => {
    const program = new RunningProgram(
      deployment.commands.relay,
      [
        ...['run', '--data-plane', '--dir', dir, '--listen', `127.0.0.1:${port}`],
        ...['--admin-listen', `127.0.0.1:${adminPort}`, ...more],
      ],
      { env: { ...deployment.commands.env, ...env } },
    );
    await program.line(/^ready$/);
    return program;
  };
  const relay: DataPlaneRelay = {
    name,
    dir,
    port,
    adminPort,
    url,
    program: await run('--enroll', `file:${code}`),
    restart: async () => {
      relay.program = await run();
    },
  };
  return relay;
}

/** A relay with a control plane of its own on the deployment's store. */
export interface ControlPlaneRelay {
  readonly dir: string;
  readonly url: string;
  program: RunningProgram;
  /** Runs an administration command there. */
  admin(...args: string[]): Promise<string>;
}

/** Invites a control plane, joins and runs it until it is ready. Stop its program before the deployment. */
export async function addControlPlane(
  deployment: Deployment,
  name: string,
): Promise<ControlPlaneRelay> {
  const { commands } = deployment;
  const port = await freePort();
  const url = `https://127.0.0.1:${port}`;
  const dir = join(deployment.dir, name);
  const file = join(deployment.dir, `${name}.code`);
  const code = await deployment.admin('invite', 'relay', name, '--url', url, '--control-plane');
  await writeFile(file, code, { mode: 0o600 });
  const options = { env: { ...commands.env, ...deployment.relayEnv } };
  const admin = (...args: string[]) => mustRun(commands.relay, [...args, '--dir', dir], options);
  await admin('init', '--join', `file:${file}`, '--store', deployment.options.storeUrl ?? '');
  const program = new RunningProgram(
    commands.relay,
    ['run', '--dir', dir, '--listen', `127.0.0.1:${port}`],
    options,
  );
  await program.line(/^ready$/);
  return { dir, url, program, admin };
}

/** What `relay list --json` says, by name. */
export async function listRelays(
  deployment: Deployment,
): Promise<Map<string, Readonly<Record<string, unknown>>>> {
  const text = await deployment.admin('relay', 'list', '--json');
  const rows = text.split('\n').filter(Boolean);
  return new Map(
    rows.map((line) => {
      const row = JSON.parse(line) as Record<string, unknown>;
      return [String(row['name']), row];
    }),
  );
}
