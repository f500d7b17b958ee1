/** Bounds of signals; `docs/limits.md` repeats them. */

/** A Security Event Token, before anything of it is read. */
export const maxTokenBytes = 65_536;

/** An answer of a server outside, and how long it may take in all. */
export const maxOutsideBytes = 262_144;
export const outsideTimeoutMs = 5_000;

/** Tokens may be issued so far in our future: clocks differ. */
export const maxAheadMs = 120_000;

/** Smaller RSA keys sign nothing that counts. */
export const minKeyBits = 2_048;

/** An unknown key makes us look for new ones this often at most, and known ones are read anew this often. */
export const keyCoolDownMs = 30_000;
export const keyCacheMs = 600_000;

/** Tokens of one address, before it proved anything. */
export const pushesOfAddress = { burst: 120, perMinute: 600 };

/** Tokens of one stream: each is a durable write. */
export const tokensOfStream = { burst: 600, perMinute: 1_200 };

/** Tokens asked for in one poll; a single one when an answer was too large. */
export const maxPolledTokens = 20;

/** Who polls a stream keeps others from it for so long after its last turn. */
export const pollLeaseMs = 30_000;

/** Waiting after failures, of polling and of sending: full jitter below a ceiling that doubles up to this. */
export const maxBackoffMs = 300_000;

/** After so many attempts, over about six hours, what cannot be delivered is dead. */
export const maxAttempts = 150;

/** Attempts in a row before the store notes a failure. */
export const quickRetries = 2;

/** Deliveries at once, and how long one keeps other control planes from it. */
export const maxDeliveries = 8;
export const deliveryLeaseMs = 60_000;

/** What waits for one receiver; beyond, the oldest is dead. */
export const maxWaiting = 10_000;

/** Dead letters are kept so long. */
export const deadKeptMs = 30 * 86_400_000;
