/** Every bound of the connector; `docs/limits.md` repeats them. */

/** Apps in the map: as many as a hello can name. */
export const maxApps = 256;

/** Bytes of `connector.yaml`. */
export const maxConfigBytes = 262_144;

/** Tunnels open at once: as many as a hello can name. */
export const maxTunnels = 4_096;

/**
 * Tunnels of one device open at once. More than the control plane grants, which is what people meet: an end is known
 * here later than there.
 */
export const maxTunnelsPerDevice = 256;

/** Streams open at once in one tunnel. More than an honest client opens, for the same reason. */
export const maxStreamsPerTunnel = 1_100;

/** Streams of one device open at once, in all of its tunnels. */
export const maxStreamsPerDevice = 2_000;

/** Streams open at once: each is a descriptor, and up to a window of bytes that its app has not read. */
export const maxStreams = 16_000;

/** Growth of receive windows of all tunnels together, in bytes. */
export const maxWindowGrowthBytes = 268_435_456;

/** Growth of what all tunnels together keep to be sent again on a later path, in bytes. */
export const maxReplayGrowthBytes = 268_435_456;

/** Tunnels of one device that are kept without a path. */
export const maxDetachedPerDevice = 64;

/** Records that may wait while a grant is checked, in bytes. */
export const maxHeldRecordBytes = 1_048_576;

/** Ends of tunnels kept to be told when the control channel is back. */
export const maxUntoldEnds = 1_024;

/** Grants remembered as used; each is forgotten when it has expired. */
export const maxUsedGrants = 65_536;

/** Idle data WebSockets kept at one relay, whatever the control plane asks for. */
export const maxSlots = 64;

/** Relays dialled ahead, whatever the control plane names. */
export const maxRelays = 16;

/** Control planes that a channel is held to, whatever the list names. */
export const maxControlLinks = 8;

/** The longest delay between dials of a control plane that was just lost: tunnels wait for it, and connectors are few. */
export const redialWithinMs = 500;

/** How often round trips are measured anew, and told where they changed. */
export const measureEveryMs = 20_000;

/** A handshake that takes longer is given up. */
export const handshakeTimeoutMs = 5_000;

/** How long an admitted client may take to prove the tunnel that it takes up again. */
export const resumeTimeoutMs = 5_000;

/** How long a grant waits for the revocation log to reach its position. */
export const feedWaitMs = 2_000;

/** No lease counts for longer than this from the moment it is learned, whoever signed it. */
export const maxLeaseMs = 60_000;

/** How often every lease is looked at, besides once per record. */
export const leaseTickMs = 250;

/** An idle data WebSocket is replaced after this long; always less than an hour. */
export const slotLifetimeMs = 50 * 60_000;

/** Time to find an app's address and connect to it. */
export const appConnectTimeoutMs = 10_000;

/** A closed data WebSocket whose peer does not answer is cut after this long. */
export const closeTimeoutMs = 2_000;

/** How long a stop waits for tunnels that are in use, unless `connector.yaml` says otherwise, and at most. */
export const defaultDrainForMs = 25_000;
export const maxDrainForMs = 3_600_000;

/** A relay where not all idle sockets stand for so long is wedged: the connector is not ready. */
export const wedgedAfterMs = 10_000;
