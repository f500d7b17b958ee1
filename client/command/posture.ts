import { toZtnaError, type DevicePosture, type ToDevice } from '../../protocol/index.ts';
import { loadIdentity, printJsonLine, printTable } from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { openProfile } from '../agent/profile.ts';
import { checkFix, checkOfCondition, checkTitle } from '../posture/advice.ts';
import { MachinePosture } from '../posture/machine-posture.ts';
import { openLogger, print, say, type GlobalOptions } from './context.ts';

type Needs = Omit<Extract<ToDevice, { type: 'posture_needs' }>, 'type' | 'id'>;

/** What the relay says, or why it says nothing. */
interface Told {
  readonly needs: Needs | null;
  readonly failure: { readonly code: string; readonly message: string } | null;
}

/**
 * Shows what is found on this machine, how, and how to mend it; and what policy needs of it for the user's apps, where the relay
 * can be asked. Not to be able to ask is told, and no failure.
 */
export async function runPosture(options: GlobalOptions): Promise<void> {
  const posture = new MachinePosture();
  const { needs, failure } = await askRelay(options, posture);
  const facts = await posture.collect();
  if (options.json) printJsonLine(toJson(facts, needs, failure));
  else {
    showFacts(facts);
    showNeeds(facts, needs, failure);
  }
}

async function askRelay(options: GlobalOptions, posture: MachinePosture): Promise<Told> {
  const profile = await openProfile(options.profile);
  try {
    const identity = await loadIdentity(profile.dir);
    if (!identity) return { needs: null, failure: notEnrolled };
    const agent = await Agent.start({ profile, identity, logger: openLogger(), posture });
    try {
      return { needs: await agent.postureNeeds(), failure: null };
    } finally {
      await agent.stop();
    }
  } catch (thrown) {
    const { code, message } = toZtnaError(thrown);
    return { needs: null, failure: { code, message } };
  }
}

const notEnrolled = {
  code: 'ERR_IDENTITY_NOT_ENROLLED',
  message: 'this machine is not enrolled',
} as const;

function toJson(facts: DevicePosture, needs: Needs | null, failure: Told['failure']): unknown {
  const { platform, osVersion, clientVersion, checks } = facts;
  return {
    platform,
    osVersion,
    clientVersion,
    checks: checks.map(([check, result, how]) => ({
      check,
      result,
      how,
      fix: result === 'on' ? null : checkFix(check, platform),
    })),
    heardAgoMs: needs?.heardAgoMs ?? null,
    needs: needs?.needs.map((need) => ({ ...need, fix: fixOfNeed(need, facts) })) ?? null,
    error: failure,
  };
}

function showFacts(facts: DevicePosture): void {
  const { platform, osVersion, clientVersion, checks } = facts;
  print(`system   ${platform} ${osVersion || '(version unknown)'}`);
  print(`ztna     ${clientVersion}`);
  const rows = checks.map(([check, result, how]) => ({
    FACT: checkTitle(check),
    VALUE: result,
    FOUND: how,
  }));
  process.stdout.write(printTable(rows, ['FACT', 'VALUE', 'FOUND']));
}

function showNeeds(facts: DevicePosture, needs: Needs | null, failure: Told['failure']): void {
  if (!needs) {
    const why = failure ? `${failure.message} [${failure.code}]` : 'the relay did not say';
    say(`what your apps need of this device is not known: ${why}`);
    for (const [check, result] of facts.checks) {
      if (result === 'on') continue;
      say(`${checkTitle(check)} is ${result}; fix: ${checkFix(check, facts.platform)}`);
    }
    return;
  }
  const { heardAgoMs } = needs;
  say(
    heardAgoMs === null
      ? 'the relay has heard nothing recent of this device: all of it counts as unknown'
      : `the relay heard of this device ${Math.round(heardAgoMs / 1_000)} s ago`,
  );
  if (needs.needs.length === 0) say('no app of yours needs anything of this device');
  const rows = needs.needs.map(({ app, what, actual, required, met }) => ({
    APP: app,
    NEEDS: `${titleOfNeed(what)}: ${required}`,
    IS: actual,
    MET: met ? 'yes' : 'no',
  }));
  process.stdout.write(printTable(rows, ['APP', 'NEEDS', 'IS', 'MET']));
  const fixes = needs.needs.map((need) => fixOfNeed(need, facts)).filter((fix) => fix !== null);
  for (const fix of new Set(fixes)) say(`fix: ${fix}`);
}

type Need = Needs['needs'][number];

const titleOfNeed = (what: string): string => checkTitle(checkOfCondition(what) ?? what);

function fixOfNeed({ what, met }: Need, { platform }: DevicePosture): string | null {
  return met ? null : checkFix(checkOfCondition(what) ?? what, platform);
}
