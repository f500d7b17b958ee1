import type { Flag } from './flag.ts';

/** What is known of a stream of tokens from others. */
export interface SignalStreamsTable {
  name: string;
  lastEventAtMs: number | null;
  lastVerifiedAtMs: number | null; // by an event that says nothing else
  status: string | null; // as its transmitter told last
  lastError: string | null;
  accepted: number;
  refused: number;
  poller: string | null; // the control plane that asks for its tokens
  pollUntilMs: number; // and keeps the others from it until then
}

/** Tokens that came, until they would be refused for their age. */
export interface SignalTokensTable {
  stream: string;
  jti: string;
  digest: string; // SHA-256 of the claims, hex
  expiresAtMs: number;
}

/** What a stream said last of a subject, and whether it still counts. */
export interface SignalMarksTable {
  stream: string;
  kind: 'device' | 'risk'; // not compliant, or a part of the risk
  subjectKind: 'user' | 'session' | 'device';
  subjectId: string;
  points: number; // 0 unless risk
  active: Flag;
  happenedAtMs: number; // events from before change nothing
  untilMs: number;
}

/** What others are still to be told; dead is what they would not take. */
export interface SignalOutboxTable {
  id: string;
  target: string; // `set NAME` or `webhook NAME`
  event: string;
  bodyJson: string;
  attempts: number;
  nextAtMs: number;
  claimedUntilMs: number; // a control plane is at it until then
  lastError: string | null;
  dead: Flag;
  createdAtMs: number;
}
