import { off, on, unknown, type Finding } from '../finding.ts';
import { linesOf, type ToolAnswer } from '../run-tool.ts';

/** The services that are asked about, in this order. */
export const firewallUnits = [
  'ufw',
  'firewalld',
  'nftables',
  'iptables',
  'ip6tables',
  'netfilter-persistent',
  'shorewall',
] as const;

/** What can be known of the firewall; root alone may read the kernel's rules. */
export interface FirewallEvidence {
  /** `nft list ruleset` */
  readonly ruleset?: ToolAnswer | undefined;
  /** `ufw status` */
  readonly ufwStatus?: ToolAnswer | undefined;
  /** `systemctl is-active` of `firewallUnits` */
  readonly units: ToolAnswer;
  /** `firewall-cmd --state` */
  readonly firewalld?: ToolAnswer | undefined;
  /** /etc/ufw/ufw.conf and /etc/default/ufw */
  readonly ufwConf?: string | undefined;
  readonly ufwDefaults?: string | undefined;
  /** /etc/nftables.conf */
  readonly nftablesConf?: string | undefined;
}

/** Whether what comes in is refused unless it is let in. */
export function judgeFirewall(evidence: FirewallEvidence): Finding {
  const { ruleset, ufwStatus, firewalld } = evidence;
  if (ruleset && outputOf(ruleset) !== undefined && refusesByDefault(outputOf(ruleset) ?? ''))
    return on('the kernel refuses by default (nft list ruleset)');
  if (ufwStatus && lineOf(ufwStatus, /^Status: /) === 'Status: active')
    return judgeUfw(evidence, 'ufw status');
  const active = readUnits(evidence.units);
  if (!active) {
    if (firewalld && outputOf(firewalld)?.trim() === 'running')
      return on('firewalld runs (firewall-cmd --state)');
    return unknown('systemctl was not understood');
  }
  if (active.has('firewalld')) return on('firewalld is active (systemctl)');
  if (active.has('ufw') && /^ENABLED=["']?yes["']?$/im.test(trimLines(evidence.ufwConf ?? '')))
    return judgeUfw(evidence, 'ufw.conf, systemctl');
  if (active.has('nftables')) {
    if (evidence.nftablesConf === undefined)
      return unknown('nftables is active; root alone may read its rules');
    if (refusesByDefault(evidence.nftablesConf))
      return on('nftables is active and refuses by default (nftables.conf)');
    // What nftables.conf includes is not read.
    if (/^\s*include\b/m.test(evidence.nftablesConf))
      return unknown('nftables is active; its rules are in other files');
  }
  const others = [...active].filter((unit) => unit !== 'ufw' && unit !== 'nftables');
  if (others.length > 0) return unknown(`${others.join(', ')}: root alone may read its rules`);
  return off('no firewall is active (systemctl)');
}

function judgeUfw({ ufwDefaults }: FirewallEvidence, source: string): Finding {
  return /^DEFAULT_INPUT_POLICY=["']?ACCEPT["']?$/im.test(trimLines(ufwDefaults ?? ''))
    ? off(`ufw is active and lets everything in (/etc/default/ufw)`)
    : on(`ufw is active (${source})`);
}

const trimLines = (text: string): string => linesOf(text).join('\n');

function outputOf(answer: ToolAnswer): string | undefined {
  return 'failure' in answer || answer.exitCode !== 0 ? undefined : answer.stdout;
}

function lineOf(answer: ToolAnswer, pattern: RegExp): string | undefined {
  return linesOf(outputOf(answer) ?? '').find((line) => pattern.test(line));
}

const unitStates = [
  'active',
  'reloading',
  'inactive',
  'failed',
  'activating',
  'deactivating',
  'maintenance',
  'unknown',
];

/** The units that are active; undefined unless each has a state. Its exit code tells of them all together, and nothing here. */
function readUnits(answer: ToolAnswer): Set<string> | undefined {
  if ('failure' in answer) return undefined;
  const states = linesOf(answer.stdout);
  if (states.length !== firewallUnits.length) return undefined;
  if (!states.every((state) => unitStates.includes(state))) return undefined;
  return new Set(firewallUnits.filter((_, i) => states[i] === 'active'));
}

/**
 * True when a chain on the way in drops by policy, or ends by dropping or rejecting everything, in what `nft list ruleset`
 * prints or in a file of its syntax.
 */
export function refusesByDefault(rules: string): boolean {
  let isInput = false;
  for (const piece of rules.split(/[\n;]/)) {
    let statement = piece.replace(/#.*$/, '').trim();
    const chain = /^(?:table [^{]{0,200}\{ *)?(?:add )?chain [^{]{1,200}\{/.exec(statement);
    if (chain) {
      isInput = false;
      statement = statement.slice(chain[0].length).trim();
    }
    if (statement.startsWith('}')) isInput = false;
    if (/^type filter hook input\b/.test(statement)) isInput = true;
    if (!isInput) continue;
    if (statement === 'policy drop') return true;
    if (
      /^(?:counter(?: packets \d+ bytes \d+)? )?(?:drop|reject(?: with [\w -]+)?)$/.test(statement)
    )
      return true;
  }
  return false;
}
