import {
  compareSequence,
  errorRow,
  isDeviceReason,
  Lease,
  resumeSecretOf,
  TunnelEndpoint,
  ZtnaError,
  type ByteBudget,
  type ErrorCode,
  type RelayId,
  type ResumeSecret,
  type Sequence,
  type TunnelStream,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import { fullJitterDelayMs, PathKeeper, type ControlClock } from '../../protocol/host/index.ts';
import { DrainPace } from './drain-pace.ts';
import { openWithinMs, Path, type PathOptions } from './path.ts';
import { PathCongestion } from './path-congestion.ts';
import { PathSearch, type PathSource } from './path-search.ts';
import type { PathRelay } from './permit.ts';
import { asLoss } from './tunnel-end.ts';

/** How long an end, or a loss, without a reason waits for one to come over the control channel. */
const reasonWithinMs = 1_000;

/** A move that failed is tried again after this long, and up to as much more. */
const moveAgainMs = 5_000;

/** When a path that carries bytes is replaced by one with new keys. */
export interface RekeyLimits {
  readonly afterMs: number;
  readonly afterBytes: number;
}

export const defaultRekeyLimits: RekeyLimits = { afterMs: 600_000, afterBytes: 2 ** 34 };

export interface TunnelOptions {
  /** The tunnel's first, under the grant that opens it. */
  readonly path: Path;
  readonly clock: ControlClock;
  /** Where later paths come from; without it a tunnel that has lost its path waits for its end. */
  readonly source?: PathSource;
  readonly rekey?: RekeyLimits;
  readonly budget?: ByteBudget;
  readonly replayBudget?: ByteBudget;
}

/** Why policy holds a tunnel back, and what its user can do about it. */
export interface Suspension {
  readonly reason: string;
  readonly fix: string;
}

/** What a tunnel tells whoever shows it. */
export interface TunnelWatcher {
  /** A renewal of the lease has counted. */
  onVerified(): void;
  /** It has no path and is kept until then, in control time. */
  onDetached(reason: string, untilMs: number): void;
  /** Policy holds it back, and it is kept until then, in control time. */
  onSuspended(suspension: Suspension, untilMs: number): void;
  /** It has a path again. */
  onResumed(): void;
  /** It has another path in place of one that worked. */
  onMoved(): void;
  /** Its connector is not to be reached at present. */
  onAway(): void;
  /** Its connector ends before long: new connections belong in another tunnel. */
  onLeaving(): void;
}

/**
 * One tunnel, which outlives its paths. Streams may be opened as soon as the connector has proved itself; `accepted`
 * tells when it has believed the grant too.
 *
 *   proved ──ACCEPT──▶ open ──path lost, lease over──▶ detached ──another path──▶ open
 *                      open ──rekey, the relay drains──▶ open, on another path
 *   any ──revoked, refused, CLOSE, hold over, end()──▶ closed: all streams are reset
 *
 * Under a grant of the first version, and before ACCEPT, whatever would detach it closes it.
 */
export class Tunnel {
  /** Resolves at the connector's ACCEPT; rejects when the tunnel ends before. */
  readonly accepted: Promise<undefined>;
  /** Why the tunnel ended. Never rejects. */
  readonly closed: Promise<ZtnaError>;
  watcher: Partial<TunnelWatcher> = {};
  #isLeaving = false;
  /** Called when a path has taken over, before the watcher. */
  onPath: () => void = () => undefined;
  /** Called when policy begins to hold it back, for another reason than before, or no more. */
  onSuspension: () => void = () => undefined;

  readonly #clock: ControlClock;
  readonly #keeper: PathKeeper;
  readonly #secret: ResumeSecret;
  readonly #source: PathSource | undefined;
  readonly #search: PathSearch | undefined;
  readonly #rekey: RekeyLimits;
  readonly #ending = new AbortController();
  #grant: VerifiedGrant<'client'>;
  #lease: Lease;
  #relay: PathRelay;
  #settle!: (error: ZtnaError) => void;
  #isAccepted = false;
  #isDraining = false;
  /** Why the control plane will not have it taken up again. */
  #verdict: ZtnaError | undefined;
  #isLossTold = false;
  #suspension: Suspension | undefined;
  #lossReason = '';
  #pathSinceMs = performance.now();
  #pathFrames = 0;
  #noMoveBeforeMs = 0;
  readonly #drainPace = new DrainPace();
  readonly #congestion = new PathCongestion();
  #reasonTimer: NodeJS.Timeout | undefined;
  #lossTimer: NodeJS.Timeout | undefined;

  /** Carries out the handshake of the first path and opens a tunnel on it. Throws as `Path.open`. */
  static async open(options: PathOptions & Omit<TunnelOptions, 'path'>): Promise<Tunnel> {
    return new Tunnel({ ...options, path: await Path.open(options) });
  }

  /** Throws ERR_TUNNEL_PATH_LOST, or what the path was closed with. */
  constructor({ path, clock, source, rekey, budget, replayBudget }: TunnelOptions) {
    const { permit, relay, transport } = path;
    this.#grant = permit.grant;
    this.#lease = new Lease(permit.grant);
    this.#relay = relay;
    this.#clock = clock;
    this.#rekey = rekey ?? defaultRekeyLimits;
    this.#secret = resumeSecretOf(transport);
    this.closed = new Promise((resolve) => {
      this.#settle = (error) => {
        resolve(withRef(error, this.#grant.decision));
      };
    });
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.accepted = promise;
    const { parts, isDraining } = path.take();
    this.#isDraining = isDraining;
    this.#keeper = new PathKeeper({
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'client',
          permit,
          ...(budget && { budget }),
          ...(replayBudget && { replayBudget }),
          handlers: {
            ...handlers,
            onAccept: () => {
              this.#isAccepted = true;
              resolve(undefined);
            },
          },
        }),
      path: parts,
      mayPass: () => this.#isLeaseLive(),
      holdMs: permit.grant.holdMs,
      isWaiting: () => this.#keeper.endpoint.streamCount > 0,
      keepsAlive: true,
      onDetached: (error) => {
        this.#onDetached(error);
      },
      onEnd: (error) => {
        this.#onEnd(error);
      },
      onDrain: () => {
        this.#noteDraining();
      },
    });
    this.#source = source;
    this.#search = source && this.#createSearch(source);
    const timer = setTimeout(() => {
      this.end('ERR_HANDSHAKE_TIMEOUT', 'no_answer');
    }, openWithinMs);
    const finish = (): void => clearTimeout(timer);
    this.accepted.then(finish, finish);
    void this.closed.then(reject);
    this.#keeper.start();
  }

  get id(): string {
    return this.#grant.tunnel;
  }

  /** Of the present path, or the last. */
  get grant(): VerifiedGrant<'client'> {
    return this.#grant;
  }

  /** Of the present path, or the last. */
  get relay(): PathRelay {
    return this.#relay;
  }

  /** Control time at which the tunnel may move no more bytes, unless it is verified again before. */
  get untilMs(): number {
    return this.#lease.untilMs;
  }

  /** False once it has ended, true also while it is detached. */
  get isOpen(): boolean {
    return !this.#keeper.hasEnded;
  }

  get isDetached(): boolean {
    return this.#keeper.isDetached;
  }

  /** True once its connector is known to end before long. */
  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Notes that its connector ends before long. What the tunnel carries goes on. */
  noteLeaving(): void {
    if (this.#isLeaving || !this.isOpen) return;
    this.#isLeaving = true;
    this.watcher.onLeaving?.();
  }

  /** How long a detached tunnel will still be kept; 0 for one that is not. */
  get holdLeftMs(): number {
    return this.#keeper.holdLeftMs;
  }

  get streamCount(): number {
    return this.#keeper.endpoint.streamCount;
  }

  /** Opens a stream. Throws ERR_TUNNEL_CLOSED or ERR_LIMIT_STREAMS. */
  openStream(): TunnelStream {
    return this.#keeper.endpoint.open();
  }

  /** Why policy holds it back, while it does. */
  get suspension(): Suspension | undefined {
    return this.isOpen ? this.#suspension : undefined;
  }

  /** Takes a renewal of the lease; one that does not count changes nothing, and none brings a path back. */
  renew(sequence: Sequence, untilMs: number): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs === undefined || this.#keeper.hasEnded) return;
    if (!this.#lease.renew(sequence, untilMs, nowMs)) return;
    if (!this.isDetached) this.#tell('onVerified');
  }

  /** Enforces the lease, and moves to another path when that is due. To be called a few times a second. */
  tick(): void {
    if (this.#keeper.hasEnded || this.isDetached) return;
    const { endpoint } = this.#keeper;
    if (!this.#isLeaseLive()) {
      this.#keeper.lose(leaseExpired());
    } else if (this.#congestion.isDue(endpoint, this.#pathSinceMs, performance.now())) {
      this.#keeper.cut(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_congested' }));
    } else {
      this.#moveWhenDue();
    }
  }

  /** Policy holds it back: nothing passes from here on, and what it has is kept. To be told its fix, if it is not known yet. */
  suspend(reason: string, fix?: string): void {
    if (!this.isOpen) return;
    const isSame = this.#suspension?.reason === reason;
    const isKnown = isSame && (fix ?? '') === this.#suspension?.fix;
    this.#suspension = { reason, fix: fix ?? this.#suspension?.fix ?? '' };
    if (!isSame) this.onSuspension();
    if (!this.isDetached) {
      this.#keeper.lose(new ZtnaError('ERR_TUNNEL_SUSPENDED', { reason }));
    }
    if (fix !== undefined && (!isKnown || !this.#isLossTold) && this.isDetached) {
      clearTimeout(this.#lossTimer);
      this.#isLossTold = true;
      this.watcher.onSuspended?.(this.#suspension, this.#holdEndMs());
    }
  }

  /** What held it back is mended. */
  goOn(): void {
    this.#clearSuspension();
    this.hurry();
  }

  /** Moves to another path, which replaces the present one once it works. Does nothing while one is being looked for. */
  move(avoid: readonly RelayId[] = []): void {
    if (this.isOpen && !this.isDetached) this.#search?.start(avoid);
  }

  /** Tries at once what would be tried in a moment. */
  hurry(): void {
    this.#search?.hurry();
  }

  /** Takes the tunnel up on another path, which it uses up. Throws why that cannot be, and leaves the present one alone. */
  async takeUp(path: Path): Promise<void> {
    try {
      const resumed = await path.prove(this.#secret);
      // Nothing is awaited from here, so nothing that was checked can change.
      const { grant } = path.permit;
      const { parts, isDraining } = path.take();
      const before = { grant: this.#grant, lease: this.#lease };
      this.#lease = this.#leaseFollowing(grant);
      this.#grant = grant;
      try {
        this.#keeper.replace(parts, resumed);
      } catch (error) {
        this.#grant = before.grant;
        this.#lease = before.lease;
        throw error;
      }
      this.#relay = path.relay;
      this.#onPathReplaced(isDraining);
    } catch (error) {
      path.drop();
      throw error;
    }
    this.#tellReplaced();
  }

  /** Ends the tunnel at both ends. When it has ended already, this may still say why. */
  end(code: ErrorCode, reason: string): void {
    if (this.#keeper.hasEnded) this.#settle(new ZtnaError(code, { reason }));
    else this.#keeper.close(code, reason);
  }

  /** Resolves when nothing of the tunnel is left running. */
  async gone(): Promise<void> {
    await this.#keeper.gone();
    clearTimeout(this.#reasonTimer);
  }

  #createSearch(source: PathSource): PathSearch {
    return new PathSearch({
      source,
      takeUp: async (path) => this.takeUp(path),
      isNeeded: () => this.isDetached,
      isHeldBack: () => this.#suspension !== undefined,
      onHeldBack: ({ hint }) => {
        // A refusal says what to do, and no reason: that has been told before.
        this.suspend(this.#suspension?.reason ?? 'suspended', hint ?? '');
      },
      onFailed: () => {
        this.#noMoveBeforeMs = performance.now() + moveAgainMs + spreadMs(moveAgainMs);
        this.#tellLoss();
      },
      onRefused: (error) => {
        this.#verdict = asLoss(error);
        const { code, reason } = this.#verdict;
        this.#keeper.close(code, reason ?? reasonOf(code));
      },
      onAway: () => {
        this.#tell('onAway');
      },
      signal: this.#ending.signal,
    });
  }

  /** A renewal that has overtaken the grant is the newer decision and goes on counting. */
  #leaseFollowing(grant: VerifiedGrant<'client'>): Lease {
    const isNewer = compareSequence(grant.sequence, this.#lease.sequence) > 0;
    if (!isNewer && this.#isLeaseLive()) return this.#lease;
    if (isNewer) return new Lease(grant);
    throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: 'sequence_old' });
  }

  #isLeaseLive(): boolean {
    const nowMs = this.#clock.nowMs();
    return nowMs !== undefined && this.#lease.isLive(nowMs);
  }

  #moveWhenDue(): void {
    const { endpoint, pathBytes } = this.#keeper;
    const nowMs = performance.now();
    if (!endpoint.isResumable || nowMs < this.#noMoveBeforeMs) return;
    const isOld =
      nowMs - this.#pathSinceMs >= this.#rekey.afterMs || pathBytes >= this.#rekey.afterBytes;
    if (this.#isDraining) this.move([this.#relay.id]);
    else if (isOld && endpoint.frameCount > this.#pathFrames) this.move();
  }

  #noteDraining(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    const nowMs = performance.now();
    this.#noMoveBeforeMs = nowMs + this.#drainPace.next(nowMs - this.#pathSinceMs);
  }

  #clearSuspension(): void {
    if (!this.#suspension) return;
    this.#suspension = undefined;
    this.onSuspension();
  }

  #onPathReplaced(isDraining: boolean): void {
    this.#clearSuspension();
    this.#pathSinceMs = performance.now();
    this.#pathFrames = this.#keeper.endpoint.frameCount;
    this.#noMoveBeforeMs = 0;
    this.#isDraining = false;
    if (isDraining) this.#noteDraining();
  }

  #tellReplaced(): void {
    const wasLossTold = this.#isLossTold;
    clearTimeout(this.#lossTimer);
    this.#isLossTold = false;
    this.onPath();
    if (this.isOpen && !this.isDetached) this.#tell(wasLossTold ? 'onResumed' : 'onMoved');
  }

  #onDetached(error: ZtnaError): void {
    const reason = error.reason ?? reasonOf(error.code);
    if (!this.#isAccepted) {
      this.#keeper.close(error.code, reason);
      return;
    }
    // A move may be about to end well; and a denial that the relay alone has spoken of, the control plane will explain.
    const isEarly = this.#search?.isRunning === true || errorRow(error.code).family === 'denied';
    this.#lossReason = reason;
    if (isEarly) this.#lossTimer = setTimeout(this.#tellLoss, reasonWithinMs);
    else this.#tellLoss();
    const isSuspended = error.code === 'ERR_TUNNEL_SUSPENDED';
    const isRelayWell = isSuspended || reason === 'path_congested';
    if (!isRelayWell) this.#source?.noteLost(this.#relay, error);
    this.#search?.start(isRelayWell ? [] : [this.#relay.id]);
  }

  readonly #tellLoss = (): void => {
    if (!this.isDetached || this.#isLossTold) return;
    clearTimeout(this.#lossTimer);
    this.#isLossTold = true;
    this.watcher.onDetached?.(this.#lossReason, this.#holdEndMs());
  };

  #holdEndMs(): number {
    return (this.#clock.nowMs() ?? Date.now()) + this.holdLeftMs;
  }

  #onEnd(end: ZtnaError): void {
    const error = this.#verdict ?? (this.#suspension ? notMended(end, this.#suspension) : end);
    clearTimeout(this.#lossTimer);
    this.#ending.abort();
    // Relay and control plane speak on two sockets; the one that cuts first has no room for a reason.
    const isUnexplained = error.reason === undefined && errorRow(error.code).family === 'denied';
    if (isUnexplained) this.#reasonTimer = setTimeout(() => this.#settle(error), reasonWithinMs);
    else this.#settle(error);
  }

  #tell(what: 'onVerified' | 'onResumed' | 'onMoved' | 'onAway'): void {
    this.watcher[what]?.();
  }
}

/** Up to `withinMs`, so that many do not do the same thing at the same time. */
function spreadMs(withinMs: number): number {
  return fullJitterDelayMs(0, { baseMs: withinMs, capMs: withinMs });
}

function leaseExpired(): ZtnaError {
  return new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' });
}

/** The end of a tunnel that nobody mended in time; any other end is as it was told. */
function notMended(end: ZtnaError, { reason, fix }: Suspension): ZtnaError {
  if (end.code !== 'ERR_TUNNEL_PATH_LOST') return end;
  const code = isDeviceReason(reason) ? 'ERR_POSTURE_UNHEALTHY' : 'ERR_TUNNEL_REVOKED';
  return new ZtnaError(code, {
    message: `access was suspended (${reason.replaceAll('_', ' ')}) and not mended in time`,
    reason: 'suspension_over',
    ...(fix === '' ? {} : { hint: fix }),
    cause: end,
  });
}

/** ERR_TUNNEL_PATH_LOST → path_lost. */
function reasonOf(code: ErrorCode): string {
  return code.replace(/^ERR_(?:TUNNEL_)?/, '').toLowerCase();
}

/** The same error with the decision that had allowed the tunnel, for support to look up. */
function withRef(error: ZtnaError, ref: string): ZtnaError {
  const { code, message, hint, hop, reason } = error;
  return new ZtnaError(code, {
    message,
    ref: error.ref ?? ref,
    ...(hint === undefined ? {} : { hint }),
    ...(hop === undefined ? {} : { hop }),
    ...(reason === undefined ? {} : { reason }),
    cause: error,
  });
}
