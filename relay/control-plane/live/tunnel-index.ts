import type {
  AppId,
  ConnectorId,
  DecisionId,
  DeviceId,
  InstanceId,
  RelayId,
  RevocationEntry,
  SessionId,
  TunnelId,
  UserId,
} from '../../../protocol/index.ts';

/** What holds a tunnel back, and what its user can do about it. */
export interface Suspension {
  readonly reason: string;
  readonly fix: string;
}

/** A tunnel, or a grant that may still become one, as far as this process must react to changes about it. */
export interface LiveTunnel {
  readonly id: TunnelId;
  readonly user: UserId;
  /** Changes with a resume by a newer session, through `TunnelIndex.moveSession` alone. */
  session: SessionId;
  readonly device: DeviceId;
  readonly app: AppId;
  readonly appName: string;
  readonly userName: string;
  readonly connector: ConnectorId;
  readonly instance: InstanceId;
  /** The control plane that verifies it; null for none. */
  owner: string | null;
  readonly intervalMs: number;
  /** Of the wire: from 2 on it outlives its paths. */
  readonly version: number;
  /** How long its ends keep it while it is detached. */
  readonly holdMs: number;
  /** The highest path generation that was granted, and the one that its connector last told this process of; 0: none. */
  generation: number;
  pathGeneration: number;
  /** The relay that carries its newest path, where that is known. */
  relay: RelayId | null;
  /** The same as the store knows it. */
  keptRelay: RelayId | null;
  /** Those that the grant of the highest generation names: nobody else has a word on its path. */
  relays: readonly RelayId[];
  /** Of the newest grant. */
  grantExpiresAtMs: number;
  /** Of the agent's newest control channel, as the data plane told it. */
  address: string;
  decision: DecisionId;
  policyVersion: number;
  /** `closed` ones stay until their grant has expired: until then it could be used, so entries must reach it. */
  state: 'granted' | 'open' | 'detached' | 'closed';
  detachedAtMs: number | null;
  /** Why policy holds it back; null while it does not. */
  suspension: Suspension | null;
  /** Its agent asked for a path while the connector was away: it must not wait in vain. */
  isAwaited: boolean;
  /** End of the newest lease that was sent to its connector. */
  untilMs: number;
  /** At the app, as its connector told last. */
  bytes: { readonly up: number; readonly down: number; readonly atMs: number };
  /** Digest of the newest decision's inputs. */
  inputDigest: string;
  /** Verifications with unchanged inputs that the stored decision does not count yet. */
  confirmations: number;
}

type Subjects = 'user' | 'session' | 'device' | 'app' | 'connector';

/** Every live tunnel by everything that it can be revoked by. */
export class TunnelIndex {
  readonly #byId = new Map<string, LiveTunnel>();
  readonly #bySubject: Record<Subjects, Map<string, Set<LiveTunnel>>> = {
    user: new Map(),
    session: new Map(),
    device: new Map(),
    app: new Map(),
    connector: new Map(),
  };

  add(tunnel: LiveTunnel): void {
    this.delete(tunnel.id);
    this.#byId.set(tunnel.id, tunnel);
    for (const [kind, map] of this.#maps()) {
      const set = map.get(tunnel[kind]);
      if (set) set.add(tunnel);
      else map.set(tunnel[kind], new Set([tunnel]));
    }
  }

  delete(id: string): void {
    const tunnel = this.#byId.get(id);
    if (!tunnel) return;
    this.#byId.delete(id);
    for (const [kind, map] of this.#maps()) {
      const set = map.get(tunnel[kind]);
      set?.delete(tunnel);
      if (set?.size === 0) map.delete(tunnel[kind]);
    }
  }

  /** From here on the tunnel is found, and ends, by this session. */
  moveSession(tunnel: LiveTunnel, session: SessionId): void {
    if (this.#byId.get(tunnel.id) !== tunnel || tunnel.session === session) return;
    this.delete(tunnel.id);
    tunnel.session = session;
    this.add(tunnel);
  }

  get(id: string): LiveTunnel | undefined {
    return this.#byId.get(id);
  }

  all(): Iterable<LiveTunnel> {
    return this.#byId.values();
  }

  get size(): number {
    return this.#byId.size;
  }

  /** Live tunnels about one subject; those closed already are left out. */
  about(kind: RevocationEntry['subject']['kind'], id: string): LiveTunnel[] {
    return this.everAbout(kind, id).filter((tunnel) => tunnel.state !== 'closed');
  }

  /** The same with those closed whose grant could still be used: what entries must reach their ends for. */
  everAbout(kind: RevocationEntry['subject']['kind'], id: string): LiveTunnel[] {
    if (kind === 'tunnel') {
      const tunnel = this.#byId.get(id);
      return tunnel ? [tunnel] : [];
    }
    return [...(this.#bySubject[kind].get(id) ?? [])];
  }

  #maps(): [Subjects, Map<string, Set<LiveTunnel>>][] {
    return Object.entries(this.#bySubject) as [Subjects, Map<string, Set<LiveTunnel>>][];
  }
}
