import type { ErrorCode } from '../../protocol/index.ts';

/** What happens to the way to an app, as told to people and scripts. Times are ISO 8601 in control time. */
export type TunnelEvent =
  | { readonly event: 'listening'; readonly app: string; readonly address: string }
  | { readonly event: 'open'; readonly tunnel: string; readonly until: string }
  | { readonly event: 'verified'; readonly until: string }
  | { readonly event: 'detached'; readonly reason: string; readonly until: string }
  | {
      readonly event: 'suspended';
      readonly reason: string;
      readonly fix: string;
      readonly until: string;
    }
  | { readonly event: 'resumed' }
  | { readonly event: 'moved' }
  | { readonly event: 'closed'; readonly reason: string; readonly code: ErrorCode };

export interface TunnelReporter {
  report(event: TunnelEvent): void;
  /** Talk that is no event. */
  say(line: string): void;
}

/** An instant as events tell it. */
export function toIsoTime(atMs: number): string {
  return new Date(atMs).toISOString();
}
