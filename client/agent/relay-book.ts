import { maxAvoidedRelays, type RelayId } from '../../protocol/index.ts';
import type { KnownRelays } from '../../protocol/host/index.ts';

/** A relay that failed comes last for so long, and is named to the control plane as one to avoid. */
const suspectForMs = 10_000;

/** Another relay must be nearer by so much, and by a quarter, before it takes the place of the one in use. */
const leastGainMs = 10;
const leastGain = 0.25;

/** Connecting takes one round trip for TCP and one for TLS. */
const roundTripsToConnect = 2;

/** One of a permit's relays. */
export interface OfferedRelay {
  readonly id: RelayId;
  readonly url: string;
  /** The connector's round trip to it, where that is known. */
  readonly connectorMs?: number | null;
}

/** What this process has seen of the deployment's relays: how far they are, and which of them failed. */
export class RelayBook {
  readonly #known: KnownRelays;
  readonly #nowMs: () => number;
  readonly #roundTripsMs = new Map<string, number>();
  readonly #failedAtMs = new Map<string, number>();
  #inUse: string | undefined;

  constructor(known: KnownRelays, nowMs: () => number = () => performance.now()) {
    this.#known = known;
    this.#nowMs = nowMs;
  }

  /** Notes that a relay answered. */
  noteAnswered(url: string): void {
    this.#failedAtMs.delete(url);
  }

  /** Notes that a connection to a relay's data plane was made, in so many milliseconds. */
  noteConnected(url: string, elapsedMs: number): void {
    this.noteAnswered(url);
    const newestMs = elapsedMs / roundTripsToConnect;
    const knownMs = this.#roundTripsMs.get(url);
    // One slow connection says little; a faster one says all.
    this.#roundTripsMs.set(
      url,
      knownMs === undefined || newestMs < knownMs ? newestMs : knownMs * 0.75 + newestMs * 0.25,
    );
  }

  /** Notes that a relay refused, reset, fell silent or drains. */
  noteFailed(url: string): void {
    this.#failedAtMs.set(url, this.#nowMs());
    if (this.#inUse === url) this.#inUse = undefined;
  }

  /** Notes that a tunnel's path goes by this relay now. */
  noteInUse(url: string): void {
    this.#inUse = url;
  }

  /** The relay's round trip in milliseconds, where it is known. */
  roundTripMs(url: string): number | undefined {
    return this.#roundTripsMs.get(url);
  }

  /** Relays to ask the control plane to leave out: those that failed just now, and those that drain. */
  avoided(): RelayId[] {
    const avoided = this.#known.relays.filter(
      ({ url, isDraining }) => isDraining || this.#isSuspect(url),
    );
    return avoided.map(({ id }) => id).slice(0, maxAvoidedRelays);
  }

  /**
   * A permit's relays in the order in which to try them: by this machine's round trip and the connector's, those that
   * failed or drain last. The one in use stays first unless another is clearly nearer. A relay that was never dialled
   * counts as near as the nearest, so that it gets its chance.
   */
  order<R extends OfferedRelay>(relays: readonly R[]): R[] {
    const draining = new Set(this.#known.relays.filter((r) => r.isDraining).map(({ url }) => url));
    const isLast = ({ url }: R): boolean => this.#isSuspect(url) || draining.has(url);
    const costs = this.#costs(relays);
    const costOf = (relay: R): number => costs.get(relay.url) ?? 0;
    return [...relays].sort(
      (a, b) => Number(isLast(a)) - Number(isLast(b)) || costOf(a) - costOf(b),
    );
  }

  #costs(relays: readonly OfferedRelay[]): Map<string, number> {
    const least = (values: readonly (number | null | undefined)[]): number =>
      Math.min(...values.filter((value) => typeof value === 'number'), Infinity);
    const finite = (value: number): number => (Number.isFinite(value) ? value : 0);
    const leastOwnMs = finite(least(relays.map(({ url }) => this.#roundTripsMs.get(url))));
    const leastConnectorMs = finite(least(relays.map(({ connectorMs }) => connectorMs)));
    const costs = new Map(
      relays.map(({ url, connectorMs }) => [
        url,
        (this.#roundTripsMs.get(url) ?? leastOwnMs) + (connectorMs ?? leastConnectorMs),
      ]),
    );
    const inUse = this.#inUse === undefined ? undefined : costs.get(this.#inUse);
    if (this.#inUse !== undefined && inUse !== undefined) {
      costs.set(this.#inUse, Math.min(inUse - leastGainMs, inUse * (1 - leastGain)));
    }
    return costs;
  }

  /**
   * Where to dial the control channel, in order: where it was last, the relay of the enrolment, relays with a control
   * plane, the others. Those that drain and those that failed just now come last.
   */
  controlUrls(enrolledAt: string): string[] {
    const { last, relays } = this.#known;
    const isListed = (url: string): boolean =>
      relays.length === 0 || relays.some((relay) => relay.url === url);
    const lasting = relays.filter(({ isDraining }) => !isDraining);
    const draining = relays.filter(({ isDraining }) => isDraining).map(({ url }) => url);
    const preferred = [
      ...(last === undefined ? [] : [last]),
      enrolledAt,
      ...lasting.filter(({ isControl }) => isControl).map(({ url }) => url),
      ...lasting.map(({ url }) => url),
    ];
    const urls = [...new Set(preferred.filter(isListed))];
    const isLate = (url: string): boolean => draining.includes(url) || this.#isSuspect(url);
    const ordered = [
      ...urls.filter((url) => !isLate(url)),
      ...urls.filter(isLate),
      ...draining,
      enrolledAt, // it may serve although the list that is known does not say so
    ];
    return [...new Set(ordered)];
  }

  #isSuspect(url: string): boolean {
    const failedAtMs = this.#failedAtMs.get(url);
    return failedAtMs !== undefined && this.#nowMs() - failedAtMs < suspectForMs;
  }
}
