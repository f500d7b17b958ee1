/** Bounds of what the control plane sends and keeps; `docs/limits.md` repeats them. */

/**
 * Entries of the revocation log in one signed batch. The wire allows 256, but with the longest reasons those would
 * not fit into a message.
 */
export const maxLogEntries = 240;

/** Renewals in one signed batch of leases: as many as the wire allows. */
export const maxLeaseEntries = 256;

const dayMs = 86_400_000;
const hourMs = 3_600_000;

/** The longest that a grant or a lease lives: three of the longest intervals, and grants no longer. */
const longestLeaseMs = 60_000;

/** Decisions and closed tunnels are forgotten this long after they last mattered; the audit log keeps its own word. */
export const historyKeptMs = 30 * dayMs;

/** Entries of the revocation log are forgotten when no grant or lease from before them can live, and an hour later. */
export const revocationsKeptMs = longestLeaseMs + hourMs;

/** How often what is too old is looked for. */
export const pruneEveryMs = 600_000;

/** Rows forgotten in one transaction; others wait no longer than that takes. */
export const maxPrunedAtOnce = 1_000;

/** How long the tunnels of a connector whose channel is lost wait for it before an agent is told to give up. */
export const connectorAwayMs = 7_000;

/** The same where it fell silent, or said that it gives its own end up: its process lives, and the way to it is out. */
export const connectorSilentMs = 75_000;

/** The same after a start of the control plane, when every connector dials anew. */
export const connectorReturnMs = 15_000;

/** After a start devices are not greeted before the others are back, or for so long at most. */
export const greetingHoldMs = 3_000;

/** How long a device waits for its turn to be greeted; it gives its dial 10 s in all. */
export const greetingWaitMs = 7_000;

/** Detached tunnels of one device; beyond, the one that is detached longest ends. */
export const maxDetachedPerDevice = 64;

/** How much longer than its ends the control plane keeps a detached tunnel: they end it, and say so. */
export const holdMarginMs = 5_000;

/** Receipts of cut tunnels that wait to be written down; beyond, they are dropped. */
export const maxWaitingReceipts = 65_536;

/** How far ahead of control time posture may say to be: what a device's estimate of it may be off by. */
export const maxPostureAheadMs = 5_000;

/** A device is held against policy again after this long, whatever it says: its user may have other groups. */
export const complianceEveryMs = 3_600_000;

/** How often one device is held against policy because it says something else. */
export const complianceChecks = { burst: 6, perMinute: 6 } as const;

/** Pages, and what they send, of one address; a whole office may share one. */
export const pageRequests = { burst: 300, perMinute: 300 } as const;

/** Machines that one service runs on. */
export const maxDevicesPerService = 256;

/** A machine of a service that was not seen for so long is given up when another one enrols: jobs come and go. */
export const serviceDeviceKeptMs = 7 * dayMs;
