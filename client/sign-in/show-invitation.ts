import { renderUnicodeCompact } from 'uqr';
import type { SignInInvitation } from './sign-in-elsewhere.ts';

/** Tells the person where to sign in: a line where a browser of this machine shows it, else address, code and a QR code for a phone. */
export function showInvitation(
  { url, userCode, isOpened }: Pick<SignInInvitation, 'url' | 'userCode' | 'isOpened'>,
  { isHere, elsewhere = 'ztna login --no-browser', say, draw }: ShowOptions,
): void {
  if (isHere) {
    say(isOpened ? 'a browser was opened to sign in; if you see none, open:' : 'open to sign in:');
    say(url);
    if (!isOpened) say(`in a browser of another machine: ${elsewhere}`);
    return;
  }
  draw?.(renderUnicodeCompact(url));
  say('to sign in, open this on any machine or phone:');
  say(url);
  if (userCode !== null) say(`and compare or type the code: ${userCode}`);
}

export interface ShowOptions {
  /** Whether a browser of this machine is meant. */
  readonly isHere: boolean;
  /** The command for a browser of another machine. */
  readonly elsewhere?: string;
  readonly say: (line: string) => void;
  /** Shows several lines as they are; left out where nobody sees them. */
  readonly draw?: (text: string) => void;
}
