import { decodeMessage } from '../message.ts';
import { toTunnelEnd } from '../messages/data.ts';

/** The longest text that a relay says to the end of a tunnel. */
const maxTextBytes = 256;

/** True for the one thing a relay says to the end of a tunnel: that it is about to stop. */
export function isDrainNotice(text: Buffer): boolean {
  try {
    decodeMessage(toTunnelEnd, text, maxTextBytes);
    return true;
  } catch {
    return false;
  }
}
