import type {
  ConnectorId,
  DeviceId,
  InstanceId,
  RelayId,
  SiteId,
  ToConnector,
  ToDevice,
  ToRelay,
} from '../../../protocol/index.ts';

/** The end of a control channel that pushes may go to. */
interface Peer<Id, Out> {
  readonly id: Id;
  /** As the data plane told it. */
  readonly address: string;
  /** Of the wire, as its welcome told it. */
  readonly version: number;
  send(message: Out): void;
  close(error: unknown): void;
  /** The last position in the revocation log up to which this peer was told all of its own. */
  toldTo: number;
}

export type DevicePeer = Peer<DeviceId, ToDevice>;

export interface ConnectorPeer extends Peer<ConnectorId, ToConnector> {
  readonly name: string;
  readonly site: SiteId;
  readonly instance: InstanceId;
  /** Names in the connector's own map. */
  apps: ReadonlySet<string>;
  /** Those of them whose health checks fail now. */
  unhealthy: ReadonlySet<string>;
  /** Its Ed25519 key, in base64url. */
  readonly signingKey: string;
  /** It takes no new tunnels and ends with its last one. */
  isStopping: boolean;
  /** How far it is from each relay, in milliseconds, as it measured last. */
  roundTrips: ReadonlyMap<RelayId, number>;
}

export interface RelayPeer extends Peer<RelayId, ToRelay> {
  readonly url: string;
  /** It takes no new tunnels, and those it has move away. */
  isDraining: boolean;
  /** What it signs receipts with, once it has said so. */
  receiptKey: string | null;
  /** Idle data sockets by connector, of its newest instance here. */
  readonly slots: Map<ConnectorId, { readonly instance: InstanceId; readonly idle: number }>;
}

/** Who holds a control channel now. A device may hold several; connectors and data planes one. */
export class Peers {
  readonly connectors = new Map<string, ConnectorPeer>();
  readonly relays = new Map<string, RelayPeer>();
  readonly #devices = new Map<string, Set<DevicePeer>>();

  /** The process that counts of each connector, as the store had it last. */
  readonly #newest = new Map<string, InstanceId>();

  /** Adds a connector's channel and answers the one that it replaces, which may be of the same process. */
  addConnector(peer: ConnectorPeer): ConnectorPeer | undefined {
    const older = this.connectors.get(peer.id);
    this.connectors.set(peer.id, peer);
    return older;
  }

  /** From here on this process of the connector counts, and no other may be made known. */
  noteNewest(connector: ConnectorId, instance: InstanceId): void {
    this.#newest.set(connector, instance);
  }

  isNewest(connector: ConnectorId, instance: InstanceId): boolean {
    return this.#newest.get(connector) === instance;
  }

  /** Forgets a channel that is over, unless a newer one has taken its place. */
  removeConnector(peer: ConnectorPeer): boolean {
    return this.connectors.get(peer.id) === peer && this.connectors.delete(peer.id);
  }

  addRelay(peer: RelayPeer): RelayPeer | undefined {
    const older = this.relays.get(peer.id);
    this.relays.set(peer.id, peer);
    return older;
  }

  removeRelay(peer: RelayPeer): boolean {
    return this.relays.get(peer.id) === peer && this.relays.delete(peer.id);
  }

  addDevice(peer: DevicePeer): void {
    const set = this.#devices.get(peer.id);
    if (set) set.add(peer);
    else this.#devices.set(peer.id, new Set([peer]));
  }

  removeDevice(peer: DevicePeer): void {
    const set = this.#devices.get(peer.id);
    set?.delete(peer);
    if (set?.size === 0) this.#devices.delete(peer.id);
  }

  devices(id: string): DevicePeer[] {
    return [...(this.#devices.get(id) ?? [])];
  }

  deviceCount(): number {
    return this.#devices.size;
  }

  /** Every channel there is. */
  *all(): Generator<DevicePeer | ConnectorPeer | RelayPeer> {
    yield* this.relays.values();
    yield* this.connectors.values();
    for (const set of this.#devices.values()) yield* set;
  }

  *allDevices(): Generator<DevicePeer> {
    for (const set of this.#devices.values()) yield* set;
  }
}
