/** What one tunnel may use. */
export interface TunnelLimits {
  /** Streams open at once; one more is answered with RESET `limit`. */
  readonly streams: number;
  /** Streams that are over but not yet acknowledged as such; one more ends the tunnel with ERR_LIMIT_RATE. */
  readonly lingeringStreams: number;
  /** Growth of all receive windows together, above the reserved window of each stream. */
  readonly growthBytes: number;
  /** Growth of what is kept to be sent again on a later path, above a reserved window for each stream. */
  readonly replayBytes: number;
  /** Streams that the client may reset within a second of opening them, at once and per second; more ends the tunnel with ERR_LIMIT_RATE. */
  readonly quickResetBurst: number;
  readonly quickResetsPerSecond: number;
}

export const defaultTunnelLimits: TunnelLimits = {
  streams: 1_000,
  lingeringStreams: 4_000,
  growthBytes: 16_777_216,
  replayBytes: 16_777_216,
  quickResetBurst: 100,
  quickResetsPerSecond: 50,
};
