import { conditionLines, escapeTerminal, type ShownCondition } from '../../protocol/host/index.ts';
import type { Show } from './command.ts';

export interface Rule {
  readonly id: string;
  readonly name: string | null;
  readonly file: string;
  readonly line: number;
  readonly effect: 'forbids' | 'permits' | 'would_permit' | 'does_not_permit' | 'does_not_forbid';
  readonly conditions: readonly ShownCondition[];
}

export interface Risk {
  readonly score: number;
  readonly contributions: readonly RiskPart[];
}

interface RiskPart {
  readonly name: string;
  readonly points: number;
  readonly detail: string;
}

export interface Why {
  readonly user: string;
  readonly app: string;
  readonly device: string | null;
  readonly allowed: boolean;
  readonly blockedBy: string | null;
  readonly errors: readonly string[];
  readonly groups: readonly string[];
  readonly policyVersion: number;
  readonly rules: readonly Rule[];
  readonly change: readonly { readonly what: string; readonly required: string }[];
  readonly risk: Risk;
}

/** Rules that only miss something and are shown whole. */
const maxNearMisses = 3;

/** Shows the whole answer of `policy why` to an administrator. */
export const showWhy: Show = (result) => {
  for (const line of whyLines(result as Why)) process.stdout.write(`${escapeTerminal(line)}\n`);
};

/** The answer in lines: verdict, rules with their conditions, the smallest change, risk, and who was asked about. */
export function whyLines(why: Why): string[] {
  const { user, app, device, allowed, blockedBy, errors, groups, policyVersion, rules, risk } = why;
  const of = `${user} in ${groups.join(', ') || 'no group'}, on ${device ?? 'no device'}`;
  return [
    `${user} to ${app}: ${allowed ? 'allowed' : 'denied'}`,
    ...(blockedBy === null ? [] : [`whatever policy says: ${blockedBy}`]),
    ...errors.map((error) => `policy failed, which denies: ${error}`),
    ...ruleLines(rules),
    ...(allowed ? [] : [`smallest change: ${changeText(why)}`]),
    `risk: ${riskText(risk)}`,
    `asked: policy version ${String(policyVersion)}, ${of}`,
  ];
}

/** Shows what a stored decision comes to by the policy and the facts of its time. */
export const showReplay: Show = (result) => {
  for (const line of replayLines(result as Replay)) {
    process.stdout.write(`${escapeTerminal(line)}\n`);
  }
};

export interface Replay {
  readonly decision: string;
  readonly app: string;
  readonly policyVersion: number;
  readonly decidedAtMs: number;
  readonly lastConfirmedAtMs: number;
  readonly confirmations: number;
  readonly recorded: Verdict;
  readonly replayed: Verdict | null;
  readonly isSame: boolean;
  readonly unasked: string | null;
  readonly rules: readonly Rule[];
}

interface Verdict {
  readonly verdict: string;
  readonly reasons: readonly string[];
}

/** What was decided and when, whether it comes out the same, and by which rules. */
export function replayLines(replay: Replay): string[] {
  const { decision, app, recorded, replayed, isSame, unasked, policyVersion } = replay;
  const time = (ms: number) => new Date(ms).toISOString();
  const until =
    replay.confirmations === 0
      ? ''
      : `, confirmed ${String(replay.confirmations)} times until ${time(replay.lastConfirmedAtMs)}`;
  const again =
    unasked === null
      ? `${verdictText(replayed)}, by policy version ${String(policyVersion)}`
      : `policy was not asked, ${unasked}`;
  return [
    `${decision} on ${app}: ${verdictText(recorded)}`,
    `decided ${time(replay.decidedAtMs)}${until}`,
    `${isSame ? 'the same' : 'NOT THE SAME'}: ${again}`,
    ...(unasked === null ? ruleLines(replay.rules) : []),
  ];
}

function verdictText(verdict: Verdict | null): string {
  if (!verdict) return 'none';
  const by = verdict.reasons.length === 0 ? '' : ` by ${verdict.reasons.join(', ')}`;
  return `${verdict.verdict}${by}`;
}

/** Those that decide with their conditions; the others where none does, the nearest first. */
function ruleLines(rules: readonly Rule[]): string[] {
  const deciding = rules.filter(({ effect }) =>
    ['forbids', 'permits', 'would_permit'].includes(effect),
  );
  const hasPermit = deciding.some(({ effect }) => effect !== 'forbids');
  const others = rules.filter(({ effect }) => effect === 'does_not_permit');
  const near = hasPermit ? [] : others.slice(0, maxNearMisses);
  const lines = [...deciding, ...near].flatMap((rule) => [
    headOf(rule),
    ...conditionLines(rule.conditions),
  ]);
  if (!hasPermit && others.length === 0) lines.push('no policy permits anything of this app');
  const rest = [
    ...others.slice(near.length),
    ...rules.filter(({ effect }) => effect === 'does_not_forbid'),
  ];
  if (rest.length > 0) lines.push(`not in play: ${rest.map(({ id }) => id).join(', ')}`);
  return lines;
}

const verbs = {
  forbids: 'forbids',
  permits: 'permits',
  would_permit: 'would permit',
  does_not_permit: 'does not permit',
  does_not_forbid: 'does not forbid',
} as const;

function headOf({ id, name, file, line, effect }: Rule): string {
  return `${id} ${verbs[effect]} (${file}:${String(line)})${name === null ? '' : `: ${name}`}`;
}

function changeText({ change, blockedBy }: Why): string {
  if (change.length > 0)
    return change.map(({ what, required }) => `${what}: ${required}`).join('; ');
  return blockedBy === null
    ? 'none that the user or one more group could bring'
    : `not ${blockedBy}`;
}

/** `24: failed_sign_ins 24 (6 in 15 min)`. */
export function riskText({ score, contributions }: Risk): string {
  const parts = contributions.map(
    ({ name, points, detail }) => `${name} ${String(points)}${detail === '' ? '' : ` (${detail})`}`,
  );
  return parts.length === 0 ? String(score) : `${String(score)}: ${parts.join(', ')}`;
}
