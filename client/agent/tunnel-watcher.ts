/** Why policy holds a tunnel back, and what its user can do about it. */
export interface Suspension {
  readonly reason: string;
  readonly fix: string;
}

/** What a tunnel tells whoever shows it. */
export interface TunnelWatcher {
  /** A renewal of the lease has counted. */
  onVerified(): void;
  /** It has no path and is kept until then, in control time. */
  onDetached(reason: string, untilMs: number): void;
  /** Policy holds it back, and it is kept until then, in control time. */
  onSuspended(suspension: Suspension, untilMs: number): void;
  /** It has a path again. */
  onResumed(): void;
  /** It has another path in place of one that worked. */
  onMoved(): void;
  /** Its connector is not to be reached at present. */
  onAway(): void;
  /** Its connector ends before long: new connections belong in another tunnel. */
  onLeaving(): void;
}
