/**
 * `npm run bench -- sign-in-storm`: what a thousand sign-ins at once do to everybody else.
 *
 *   npm run bench -- sign-in-storm                  1,000 attempts
 *   npm run bench -- sign-in-storm --attempts 200   fewer
 *
 * The attempts come from two hundred addresses, half of them at one account; guesses cost what they cost in production. All on
 * one machine, so the attackers use its processors, too.
 */
import { parseArgs } from 'node:util';
import { runStorm } from '../support/sign-in-storm.ts';

export async function runSignInStormBench(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: { attempts: { type: 'string', default: '1000' } },
  });
  const attempts = Number(values.attempts);
  const { answers, tookMs, control, data, owner, flow } = await runStorm({
    attempts,
    isGuessDear: true,
    usualMs: 3_000,
  });
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const late = ({ p50Ms, p99Ms, maxMs, cpuMs }: typeof control) =>
    `late by ${ms(p50Ms)} (50 %), ${ms(p99Ms)} (99 %), ${ms(maxMs)} (longest); ${ms(cpuMs)} of processors`;
  const told = Object.entries(answers).map(([status, count]) => `${count} × ${status}`);
  console.log(`${attempts} attempts in ${ms(tookMs)}: ${told.join(', ')}`);
  console.log(`control plane's event loop: ${late(control)}`);
  console.log(`data plane's event loop:    ${late(data)}`);
  console.log(
    `owner's own sign-in meanwhile: ${owner.exitCode === 0 ? 'done' : `REFUSED (${owner.stderr})`} in ${ms(owner.tookMs)}`,
  );
  console.log(
    `live tunnel: ${flow.isOpen ? 'every byte came back' : 'BROKEN'}; longest pause ${ms(flow.longestGapMs)}, before ${ms(flow.usualGapMs)}`,
  );
}
