/**
 * Every limit of the data plane in one place; `docs/limits.md` repeats them. Sizes in bytes, times in milliseconds.
 */
export const limits = {
  /** A ClientHello, over all segments and records, while it is looked at without ending TLS. */
  helloBytes: 16_384,
  helloMs: 5_000,
  /** From the ClientHello to the end of the TLS handshake, and from there to a complete upgrade request. */
  handshakeMs: 5_000,
  requestMs: 5_000,
  requestHeaderBytes: 8_192,
  requestHeaders: 32,

  /** Open TCP connections of every kind; two descriptors each at most, below the usual 20,000 for one process. */
  connections: 16_000,
  /** Connections that wait in the kernel to be accepted; it may allow fewer. */
  backlog: 4_096,
  /** Connections whose ClientHello is not complete. */
  pendingHellos: 4_096,
  /** Connections handed on to the control plane; each holds a second descriptor. */
  forwarded: 3_000,
  forwardConnectMs: 5_000,
  /** The control plane of the same host is looked for this often at a start, and dialled after that in any case. */
  controlStartCheckMs: 50,
  controlStartMs: 10_000,
  /** A relay with a control plane that is silent for so long gets company; one that failed comes last for a while. */
  forwardStaggerMs: 1_000,
  forwardSuspectMs: 10_000,
  /** While none can be reached this is tried so often, for all who wait; so much apart they go on when one can. */
  forwardAgainMs: 100,
  forwardSpreadMs: 1,

  /**
   * Strangers from one address (IPv6: one /64), behind which a whole company may be that has lost its relay. Whoever
   * presents a valid certificate gets the token back.
   */
  addressBurst: 4_096,
  addressPerSecond: 128,
  addressesTracked: 65_536,

  /** A record is one message; who splits it, in how many pieces at most. */
  messageFragments: 16,
  /** Text messages of an idle connector socket. */
  hopMessageBytes: 8_192,

  /** Grants remembered as used until they expire, and tunnels at one time. */
  usedGrants: 131_072,
  tunnels: 8_000,
  tunnelsPerDevice: 256,
  /** How long a grant may run ahead of what this relay knows of the revocation log. */
  logWaitMs: 2_000,

  /** Idle sockets per connector process, and how long one may wait to be used. */
  slotsPerInstance: 128,
  slotLifeMs: 3_600_000,
  /** A connector process that holds no idle socket for so long keeps an older one out no more. */
  instanceGoneMs: 5_000,
  slotAckMs: 1_000,
  /** How long a tunnel waits for its connector altogether, and how many of its sockets are tried. */
  slotWaitMs: 4_000,
  slotAttempts: 3,
  waitersPerInstance: 256,

  /** Bytes queued towards one end before the other is no longer read, and when reading goes on. */
  highWaterBytes: 2_097_152,
  lowWaterBytes: 524_288,

  /** Enforcement of leases, certificates and liveness. */
  tickMs: 250,
  /** With data outstanding an end that shows no progress is asked after this long, and given up after that. */
  pingAfterMs: 4_000,
  deadAfterMs: 8_500,
  /** A path that moved bytes within this time is watched as closely as one with data outstanding. */
  activeMs: 30_000,
  /** The longest delay between dials of a control plane that was just lost: tunnels wait for it, and relays are few. */
  redialWithinMs: 500,
  /** Idle paths send something this often, for address translators. */
  idlePingMs: 50_000,
  /** What is queued ahead of a close frame may take this long; then the connection is cut. */
  closeGraceMs: 250,
  closeHandshakeMs: 2_000,

  /** Tunnels that are told at once to move away, and when the next are. */
  drainBatch: 64,
  drainBatchMs: 50,
  /** How often a drain says in the log what it waits for. */
  drainProgressMs: 5_000,

  /** Used grants are looked through this often. */
  sweepMs: 30_000,

  /** Ends of tunnels kept while the control plane is away. */
  unsentEnds: 8_192,
  /** Paths that an end left because access was over, for a receipt when the entry that says so comes: how many, how long. */
  leftPaths: 1_024,
  leftPathMs: 5_000,
  /** Refusals told to the control plane for the audit log. */
  auditBurst: 100,
  auditPerSecond: 20,
} as const;
