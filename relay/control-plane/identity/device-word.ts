import * as v from 'valibot';
import type { UserId } from '../../../protocol/index.ts';
import type { Sealer } from '../authority/sealer.ts';

/** How long the word of a device lasts. */
export const deviceWordLifeMs = 600_000;

const schema = v.strictObject({ user: v.string(), untilMs: v.number() });
const about = 'word of a device';

/** Says that a user was signed in on an enrolled device just now; the device brings it to a browser. */
export function sealDeviceWord(sealer: Sealer, user: UserId, nowMs: number): string {
  return sealer.seal(JSON.stringify({ user, untilMs: nowMs + deviceWordLifeMs }), about);
}

/** Whether that is such a word about this user, and fresh. */
export function isDeviceWord(
  sealer: Sealer,
  sealed: string | undefined,
  user: UserId,
  nowMs: number,
): boolean {
  if (sealed === undefined || sealed.length > 512) return false;
  let text: string;
  try {
    text = sealer.open(sealed, about);
  } catch {
    return false;
  }
  const word = v.safeParse(schema, JSON.parse(text));
  return word.success && word.output.user === user && word.output.untilMs > nowMs;
}
