import { resolve } from 'node:path';
import { printJsonLine, printTable, escapeTerminal } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import { readStatus, type ConnectorStatus } from '../status-socket.ts';

/** `ztna-connector status`. With `isReadyAsked` throws ERR_CONNECTOR_OFFLINE (exit 8) unless it is ready. */
export async function runStatus(options: {
  readonly dir: string;
  readonly json: boolean;
  readonly isReadyAsked: boolean;
}): Promise<void> {
  const dir = resolve(options.dir);
  const status = await readStatus(dir);
  if (options.json) printJsonLine(status ?? { state: 'stopped' });
  else if (status) printStatus(status);
  else process.stdout.write('stopped\n');
  if (!options.isReadyAsked || status?.state === 'ready') return;
  throw new ZtnaError('ERR_CONNECTOR_OFFLINE', {
    message: status ? 'the connector is not ready' : `no connector runs from ${dir}`,
    hint: status ? status.problems.join('; ') : `start it: ztna-connector run --dir ${dir}`,
    hop: 'connector',
  });
}

function printStatus(status: ConnectorStatus): void {
  const { error } = status;
  const lines = [
    status.state,
    `connector  ${status.name ?? '-'} ${status.connector ?? ''}`,
    `relay      ${status.relay ?? '-'} (channel ${status.channel ?? 'not dialled'}, ${status.slots} idle sockets)`,
    ...status.links.map(
      ({ url, state, error: why }) =>
        `           ${url}: channel ${state}${why ? ` (${why.code})` : ''}`,
    ),
    ...status.relays.map(
      ({ id, url, idle, wanted, state, roundTripMs }) =>
        `           ${url} ${id}: ${state}, ${idle} of ${wanted} idle sockets${roundTripMs === null ? '' : `, ${roundTripMs.toFixed(1)} ms`}`,
    ),
    ...(status.proxy === null ? [] : [`proxy      ${status.proxy}`]),
    ...(error ? [`error      ${error.message} [${error.code}]`] : []),
    `tunnels    ${status.tunnels} (${status.detached} without a path) with ${status.streams} connections`,
    `keys       ${status.sealed ? 'sealed' : 'unsealed'}, certificate ends ${status.certificateEndsAt ?? '-'}`,
  ];
  process.stdout.write(`${lines.map(escapeTerminal).join('\n')}\n`);
  if (status.apps.length === 0) return;
  const rows = status.apps.map(({ name, target, routed, checked, up }) => ({
    app: name,
    target,
    state: up === null ? (checked ? 'not checked yet' : 'not checked') : up ? 'up' : 'down',
    relay: routed ? 'knows it' : 'does not know it',
  }));
  process.stdout.write(`\n${printTable(rows)}\n`);
}
