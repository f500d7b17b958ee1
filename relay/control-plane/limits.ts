/** Bounds of what the control plane sends and keeps; `docs/limits.md` repeats them. */

/**
 * Entries of the revocation log in one signed batch. The wire allows 256, but with the longest reasons those would
 * not fit into a message.
 */
export const maxLogEntries = 240;

/** Renewals in one signed batch of leases: as many as the wire allows. */
export const maxLeaseEntries = 256;
