import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import type { UserId } from '../../../protocol/index.ts';
import type { Sealer } from '../authority/sealer.ts';

/** How long a browser counts as one that its user has signed in with. */
export const knownBrowserLifeMs = 180 * 86_400_000;

const schema = v.strictObject({ id: v.string(), user: v.string(), untilMs: v.number() });
const about = 'known browser';

/** A browser that a user has signed in with before, so that guesses from elsewhere do not slow that user down there. */
export interface KnownBrowser {
  readonly id: string;
  readonly user: UserId;
}

/** What such a browser keeps. It opens nothing: it says who has been there, to the throttle alone. */
export function sealKnownBrowser(sealer: Sealer, user: UserId, nowMs: number): string {
  const id = randomBytes(16).toString('base64url');
  return sealer.seal(JSON.stringify({ id, user, untilMs: nowMs + knownBrowserLifeMs }), about);
}

/** Undefined for what is not ours, or too old. */
export function openKnownBrowser(
  sealer: Sealer,
  sealed: string | undefined,
  nowMs: number,
): KnownBrowser | undefined {
  if (sealed === undefined || sealed.length > 512) return undefined;
  let text: string;
  try {
    text = sealer.open(sealed, about);
  } catch {
    return undefined;
  }
  const known = v.safeParse(schema, JSON.parse(text));
  if (!known.success || known.output.untilMs <= nowMs) return undefined;
  return { id: known.output.id, user: known.output.user as UserId };
}
