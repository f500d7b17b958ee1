import { escapeTerminal } from '../../protocol/host/index.ts';
import type { TunnelReporter } from '../agent/tunnel-event.ts';

export interface ReporterStreams {
  readonly data: Pick<NodeJS.WriteStream, 'write'>;
  readonly talk: Pick<NodeJS.WriteStream, 'write' | 'isTTY'>;
}

/**
 * Reports as JSON lines or as text. With `isDataTaken` standard output belongs to an app or to a child, so that
 * everything goes to standard error.
 */
export function createReporter(
  options: { readonly isJson: boolean; readonly isDataTaken: boolean },
  streams: ReporterStreams = { data: process.stdout, talk: process.stderr },
): TunnelReporter {
  const data = options.isDataTaken ? streams.talk : streams.data;
  const say = (line: string): void => {
    if (!options.isJson) streams.talk.write(`${escapeTerminal(line)}\n`);
  };
  if (options.isJson) {
    return { say, report: (event) => void data.write(`${JSON.stringify(event)}\n`) };
  }
  // On a terminal the verification timer rewrites one line; elsewhere it would only fill a log.
  let isStatusShown = false;
  const status = (line: string): void => {
    if (!streams.talk.isTTY || options.isDataTaken) return;
    streams.talk.write(`\r\u001b[K${escapeTerminal(line)}`);
    isStatusShown = true;
  };
  const endStatus = (): void => {
    if (isStatusShown) streams.talk.write('\n');
    isStatusShown = false;
  };
  return {
    say: (line) => {
      endStatus();
      say(line);
    },
    report: (event) => {
      if (event.event === 'verified') {
        status(`verified, until ${clockTime(event.until)}`);
        return;
      }
      endStatus();
      switch (event.event) {
        case 'listening':
          if (options.isDataTaken) return;
          data.write(`${escapeTerminal(event.address)}\n`);
          say(`${event.app} is at ${event.address}`);
          return;
        case 'open':
          if (!options.isDataTaken)
            say(`open, until ${clockTime(event.until)} unless verified again`);
          return;
        case 'detached':
          say(
            `no way to the app (${event.reason}); its connections wait until ${clockTime(event.until)}`,
          );
          return;
        case 'suspended':
          say(
            `suspended: ${event.reason.replaceAll('_', ' ')}; its connections wait until ${clockTime(event.until)}`,
          );
          say(`fix: ${event.fix}`);
          return;
        case 'resumed':
          say('the way is back; nothing was lost');
          return;
        case 'moved':
          if (!options.isDataTaken) say('moved to another path');
          return;
        case 'closed':
          // A command that has done what it was for says nothing more.
          if (options.isDataTaken && event.code === 'ERR_TUNNEL_CLOSED') return;
          say(`closed: ${event.reason} [${event.code}]`);
          return;
      }
    },
  };
}

function clockTime(iso: string): string {
  return new Date(iso).toTimeString().slice(0, 8);
}
