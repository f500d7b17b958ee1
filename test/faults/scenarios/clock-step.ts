import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LiveFlow } from '../live-flow.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

/** Steps the wall clock of a program, as its own code reads it, to what a file says; timers run on. */
function steppedClock(file: string): Readonly<Record<string, string>> {
  const source = `
    import { readFileSync } from 'node:fs';
    const RealDate = Date;
    let offsetMs = 0;
    setInterval(() => {
      try { offsetMs = Number(readFileSync(${JSON.stringify(file)}, 'utf8')) || 0; } catch {}
    }, 100).unref();
    globalThis.Date = class Date extends RealDate {
      constructor(...args) { args.length === 0 ? super(RealDate.now() + offsetMs) : super(...args); }
      static now() { return RealDate.now() + offsetMs; }
    };`;
  const url = `data:text/javascript;base64,${Buffer.from(source).toString('base64')}`;
  return { NODE_OPTIONS: `--import ${url}` };
}

/** Longer than a lease, shorter than the hold time. */
const stepMs = 240_000;

/** The wall clock of one program at a time is set forward and back while a tunnel lives. */
export const clockStep: Scenario = {
  name: 'clock-step',
  isPatient: true,
  run: async (run) => {
    const dir = await mkdtemp(join(tmpdir(), 'ztna-faults-clock-'));
    const fileOf = (place: string): string => join(dir, place);
    const places = ['relay-1', 'connector-1', 'client-1'] as const;
    const env = Object.fromEntries(places.map((place) => [place, steppedClock(fileOf(place))]));
    try {
      await withRig(run, { relays: ['full'], connectors: 1, env }, async (rig) => {
        let isBroken = false;
        const live = await LiveFlow.open(rig);
        for (const place of places) {
          for (const offsetMs of [stepMs, 0]) {
            if (isBroken) break;
            await writeFile(fileOf(place), String(offsetMs));
            const way = offsetMs > 0 ? 'forward' : 'back';
            await delay(500);
            const againMs = await live.untilMoves();
            run.checkTime(`${place} 4 min ${way}: moves again ≤ 10 s`, againMs, 10_000);
            isBroken = !Number.isFinite(againMs);
            await delay(run.isQuick ? 500 : 10_000);
          }
        }
        await live.checkWhole(run);
      });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  },
};
