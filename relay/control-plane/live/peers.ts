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
}

export interface RelayPeer extends Peer<RelayId, ToRelay> {
  readonly url: string;
  /** Idle data sockets by connector, of its newest instance here. */
  readonly slots: Map<ConnectorId, { readonly instance: InstanceId; readonly idle: number }>;
}

/** Processes remembered of each connector, so that two of them cannot take turns. */
const maxReplaced = 16;

/** Who holds a control channel now. A device may hold several; connectors and data planes one. */
export class Peers {
  readonly connectors = new Map<string, ConnectorPeer>();
  readonly relays = new Map<string, RelayPeer>();
  readonly #devices = new Map<string, Set<DevicePeer>>();

  /** Processes of a connector that a newer one has replaced; they do not come back. */
  readonly #replaced = new Map<string, InstanceId[]>();

  /** Adds a connector's channel and answers the one that it replaces, which may be of the same process. */
  addConnector(peer: ConnectorPeer): ConnectorPeer | undefined {
    const older = this.connectors.get(peer.id);
    this.connectors.set(peer.id, peer);
    if (older && older.instance !== peer.instance) {
      const replaced = [...(this.#replaced.get(peer.id) ?? []), older.instance];
      this.#replaced.set(peer.id, replaced.slice(-maxReplaced));
    }
    return older;
  }

  /** True for a process of a connector that has yielded to a newer one while both were here. */
  isReplaced(connector: ConnectorId, instance: InstanceId): boolean {
    return this.#replaced.get(connector)?.includes(instance) ?? false;
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
