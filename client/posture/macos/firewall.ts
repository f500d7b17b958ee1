import { off, on, unknown, type Finding } from '../finding.ts';
import type { ToolAnswer } from '../run-tool.ts';

/**
 * Whether the application firewall is on, by `socketfilterfw --getglobalstate`, else by `defaults read
 * /Library/Preferences/com.apple.alf globalstate`.
 */
export function parseMacFirewall(filter: ToolAnswer, globalState: ToolAnswer | undefined): Finding {
  const state = readState(filter, /\(State = ([0-2])\)\s*$/);
  if (state !== undefined) return judge(state, 'socketfilterfw');
  const kept = globalState && readState(globalState, /^\s*([0-2])\s*$/);
  return kept === undefined
    ? unknown('socketfilterfw was not understood')
    : judge(kept, 'defaults');
}

const judge = (state: string, source: string): Finding =>
  state === '0' ? off(`the firewall is off (${source})`) : on(`the firewall is on (${source})`);

function readState(answer: ToolAnswer, pattern: RegExp): string | undefined {
  if ('failure' in answer || answer.exitCode !== 0 || answer.stdout.length > 512) return undefined;
  return pattern.exec(answer.stdout)?.[1];
}
