import { generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import {
  rawPublicKey,
  signingKey,
  ZtnaError,
  type ConnectorId,
  type FromRelay,
  type ListedRelay,
  type RelayId,
} from '../../protocol/index.ts';
import {
  ControlClock,
  CutReceipts,
  RevocationFeed,
  type Identity,
  type KnownRelays,
  type Logger,
} from '../../protocol/host/index.ts';
import { Admission } from './admission.ts';
import type { Endpoints } from './address.ts';
import { ControlLinks } from './control-links.ts';
import { DataServer } from './data-server.ts';
import { ForwardServer } from './forward-server.ts';
import { dialLocalControl } from './forward.ts';
import { FrontDoor } from './front-door.ts';
import type { DataPlaneCounts } from '../child.ts';
import { limits } from './limits.ts';
import { dialRemoteControl } from './remote-control.ts';
import { Slots } from './slots.ts';
import { Tunnels } from './tunnels.ts';

export interface DataPlaneOptions {
  readonly identity: Identity;
  readonly listen: { readonly host: string; readonly port: number };
  /** The control plane's unix socket on this host; undefined where there is none. */
  readonly controlSocket: string | undefined;
  readonly known: KnownRelays;
  readonly logger: Logger;
  readonly software: string;
  /** Keeps an identity whose bundle or certificate is newer. */
  readonly save: (identity: Identity) => Promise<void>;
}

/** A running data plane: front door, admission, slots, tunnels and the line to the control plane. */
export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #clock = new ControlClock();
  readonly #tunnels: Tunnels;
  readonly #slots: Slots;
  readonly #admission: Admission;
  readonly #server: DataServer;
  readonly #links: ControlLinks;
  readonly #receipts: CutReceipts;
  readonly #forwarded: ForwardServer;
  readonly #ready = Promise.withResolvers<undefined>();
  #door: FrontDoor | undefined;
  #identity: Identity;
  #timers: NodeJS.Timeout[] = [];
  #draining: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#identity = options.identity;
    const { logger } = options;
    const clock = this.#clock;
    const relay = options.identity.id as RelayId;
    const feed = new RevocationFeed({ audience: relay, clock });
    const tunnels = new Tunnels({
      onJoin: ({ tunnel, generation }) => {
        this.#links.send({ type: 'tunnel_joined', tunnel, generation });
      },
      onEnd: (tunnel, end) => {
        logger.info('tunnel_closed', { tunnel, ...end });
        this.#links.send({ type: 'tunnel_closed', tunnel, ...end });
      },
      onCut: (cut) => {
        this.#receipts.add(cut);
      },
    });
    const receiptKey = generateKeyPairSync('ed25519');
    this.#receipts = new CutReceipts({
      by: () => ({ id: relay, key: signingKey(receiptKey.privateKey) }),
      clock,
      send: (statement) => this.#links.report({ type: 'receipt', statement }),
    });
    const key = rawPublicKey(receiptKey.publicKey).toString('base64url');
    this.#tunnels = tunnels;
    const slots = new Slots({
      onIdleChange: (connector, instance, idle) => {
        this.#links.send({ type: 'slots', connector, instance, idle });
      },
    });
    this.#slots = slots;
    this.#links = new ControlLinks({
      identity: () => this.#identity,
      controlSocket: options.controlSocket,
      known: options.known,
      clock,
      feed,
      tunnels: () => tunnels.ids(),
      standing: () => [
        { type: 'receipt_key', key },
        ...slots.counts().map((count): FromRelay => ({ type: 'slots', ...count })),
        ...(this.#draining ? [{ type: 'draining' } as const] : []),
      ],
      onLeases: (batch) => {
        tunnels.renew(batch);
      },
      onEntry: (entry) => {
        tunnels.revoke(entry, feed.incarnation);
        if (entry.subject.kind === 'connector')
          this.#revokeConnector(entry.subject.id, entry.reason);
      },
      onBundle: (bundle) => {
        if (bundle.version > this.#identity.bundle.version) {
          this.useIdentity({ ...this.#identity, bundle });
        }
      },
      onLog: () => {
        this.#ready.resolve(undefined);
        this.#receipts.flush();
      },
      logger,
      software: options.software,
    });
    this.#admission = new Admission({
      relay,
      bundle: () => this.#identity.bundle,
      clock,
      feed,
      slots,
      tunnels,
      onRefused: (error, peer, address) => {
        this.#links.reportRefusal(error, peer, address);
      },
      logger,
    });
    this.#server = new DataServer({
      identity: options.identity,
      onSocket: (socket) => void this.#admission.admit(socket),
      onRefused: (error, address) => {
        this.#links.reportRefusal(error, null, address);
      },
      onAuthenticated: (address) => {
        this.#door?.authenticated(address, { hasChannel: true });
      },
      logger,
    });
    this.#forwarded = new ForwardServer({
      identity: options.identity,
      isRelay: (id) => options.known.relays.some((relay) => relay.id === id),
      onConnection: (socket, ends, firstBytes) => {
        this.#door?.handOn(socket, ends, firstBytes);
      },
      onAuthenticated: (address) => {
        this.#door?.authenticated(address);
      },
      onRefused: (error, peer, address) => {
        this.#links.reportRefusal(error, peer, address);
      },
      logger,
    });
  }

  /** Begins to accept and to dial the control plane. Throws ERR_CLIENT_PORT_BUSY or ERR_CONFIG_INVALID. */
  async start(): Promise<void> {
    const { listen, controlSocket, known, logger } = this.#options;
    this.#door = await FrontDoor.open({
      ...listen,
      dialControl:
        controlSocket === undefined
          ? dialRemoteControl({ identity: () => this.#identity, known, logger })
          : dialLocalControl(controlSocket),
      onData: (socket, { remoteAddress }) => {
        this.#server.accept(socket, remoteAddress);
      },
      ...(controlSocket === undefined
        ? {}
        : {
            onForwarded: (socket: Socket, { remoteAddress }: Endpoints) => {
              this.#forwarded.accept(socket, remoteAddress);
            },
          }),
      logger,
    });
    this.#timers = [
      setInterval(() => {
        this.#tick();
      }, limits.tickMs),
      setInterval(() => {
        this.#admission.sweep();
      }, limits.sweepMs),
    ];
    if (controlSocket !== undefined) void this.#dialControl(controlSocket);
    else this.#links.start();
  }

  /** Begins to dial once there is a control plane on this host, or should be: both start at the same time. */
  async #dialControl(socketPath: string): Promise<void> {
    const startedAtMs = performance.now();
    while (!existsSync(socketPath)) {
      if (performance.now() - startedAtMs >= limits.controlStartMs) break;
      await wait(limits.controlStartCheckMs);
    }
    this.#links.start();
  }

  /** Resolves once control time and the revocation log are known: from then on tunnels can be admitted. */
  get ready(): Promise<undefined> {
    return this.#ready.promise;
  }

  /** True while tunnels can be admitted: it does not drain, and a control plane is there to permit them. */
  get isServing(): boolean {
    return (
      this.#draining === undefined && this.#stopping === undefined && this.#links.openCount > 0
    );
  }

  get counts(): DataPlaneCounts {
    return {
      connections: this.#door?.connections ?? 0,
      tunnels: this.#tunnels.size,
      connectors: this.#slots.counts().length,
      controlPlanes: this.#links.openCount,
    };
  }

  get port(): number {
    return this.#door?.port ?? 0;
  }

  #tick(): void {
    const monotonicMs = performance.now();
    const controlMs = this.#clock.nowMs();
    this.#tunnels.tick(monotonicMs, controlMs);
    this.#slots.tick(monotonicMs, controlMs);
  }

  #revokeConnector(connector: ConnectorId, reason: string): void {
    this.#slots.dropConnector(connector, new ZtnaError('ERR_IDENTITY_REVOKED', { reason }));
  }

  /** Goes on with a newer bundle or certificate, for connections from now on, and keeps it. */
  useIdentity(identity: Identity): void {
    this.#identity = identity;
    this.#server.reload(identity);
    this.#forwarded.reload(identity);
    this.#options.save(identity).catch((error: unknown) => {
      this.#options.logger.error('identity_not_saved', { message: String(error) });
    });
  }

  get identity(): Identity {
    return this.#identity;
  }

  /**
   * Takes no new tunnels, has those it carries move to other relays, and resolves once they have, or after `forMs`,
   * or where there is no other relay: whoever is left then is closed with ERR_RELAY_DRAINING. Control channels go on
   * passing through. Idempotent.
   */
  drain(forMs: number): Promise<void> {
    this.#draining ??= this.#drain(forMs);
    return this.#draining;
  }

  async #drain(forMs: number): Promise<void> {
    const startedAtMs = performance.now();
    const { known, logger } = this.#options;
    const error = new ZtnaError('ERR_RELAY_DRAINING', { reason: 'draining' });
    logger.info('draining', { tunnels: this.#tunnels.size, forMs });
    this.#admission.drain();
    this.#links.send({ type: 'draining' });
    this.#slots.drain(error);
    const deadline = new AbortController();
    const late = wait(forMs, undefined, { signal: deadline.signal }).catch(() => undefined);
    const alone = Promise.withResolvers<undefined>();
    const look = () => {
      const isOther = (relay: ListedRelay) => relay.id !== this.#identity.id && !relay.isDraining;
      if (!known.relays.some(isOther)) alone.resolve(undefined);
    };
    const forget = known.onChange(look);
    const progress = setInterval(() => {
      this.#tellProgress(startedAtMs + forMs);
    }, limits.drainProgressMs);
    try {
      look();
      const isOver = Promise.race([late, this.#tunnels.empty()]);
      await Promise.race([isOver, this.#tellDrain(error)]);
      if (this.#tunnels.size > 0) this.#tellProgress(startedAtMs + forMs);
      await Promise.race([isOver, alone.promise]);
    } finally {
      clearInterval(progress);
      deadline.abort();
      forget();
    }
    const left = this.#tunnels.size;
    this.#tunnels.stop(error);
    // What is told to both ends and to the control plane is on its way in this time.
    if (left > 0) await wait(limits.closeGraceMs);
    const tookMs = Math.round(performance.now() - startedAtMs);
    logger.info('drained', { left, tookMs });
    this.#links.stop(); // the control plane ends next, and there is nothing left to tell it
  }

  /** What a drain waits for: tunnels whose agents have not found another relay, of those that may take them. */
  #tellProgress(untilMs: number): void {
    const { known, logger } = this.#options;
    const others = known.relays.filter(
      ({ id, isDraining }) => id !== this.#identity.id && !isDraining,
    );
    logger.info('drain_waits', {
      tunnels: this.#tunnels.size,
      reason: 'tunnels_not_moved',
      others: others.map(({ url }) => url).join(' '),
      leftMs: Math.max(0, Math.round(untilMs - performance.now())),
    });
  }

  /** Some at a time, so that not all of them ask for another path in the same moment. */
  async #tellDrain(error: ZtnaError): Promise<void> {
    const paths = this.#tunnels.all();
    for (let at = 0; at < paths.length; at += limits.drainBatch) {
      if (at > 0) await wait(limits.drainBatchMs);
      for (const path of paths.slice(at, at + limits.drainBatch)) path.drain(error);
    }
  }

  /** Stops accepting, closes tunnels and slots with ERR_RELAY_DRAINING, and lets that be told. Idempotent. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const draining = new ZtnaError('ERR_RELAY_DRAINING', { reason: 'draining' });
    this.#door?.stopAccepting();
    this.#admission.drain();
    this.#tunnels.stop(draining);
    this.#slots.stop(draining);
    for (const timer of this.#timers) clearInterval(timer);
    // Close frames and the last messages to the control plane are on their way in this time.
    await wait(limits.closeGraceMs);
    this.#links.stop();
    await this.#door?.stop();
  }
}

/** Where the control plane of a relay listens for what its data plane hands on. */
export function controlSocketOf(dir: string): string {
  return join(dir, 'run', 'control.sock');
}
