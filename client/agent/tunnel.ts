import {
  errorRow,
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
import { PathKeeper, type ControlClock } from '../../protocol/host/index.ts';
import { EndReport } from './end-report.ts';
import { LossReport } from './loss-report.ts';
import { openWithinMs, Path, type PathOptions } from './path.ts';
import { PathSearch, type PathSource } from './path-search.ts';
import { PathTurnover, type RekeyLimits } from './path-turnover.ts';
import type { PathRelay } from './permit.ts';
import { asLoss, asNotMended, reasonOf } from './tunnel-end.ts';
import { TunnelLease } from './tunnel-lease.ts';
import type { Suspension, TunnelWatcher } from './tunnel-watcher.ts';

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
  /** Called when a path has taken over, before the watcher. */
  onPath: () => void = () => undefined;
  /** Called when policy begins to hold it back, for another reason than before, or no more. */
  onSuspension: () => void = () => undefined;

  readonly #keeper: PathKeeper;
  readonly #secret: ResumeSecret;
  readonly #source: PathSource | undefined;
  readonly #search: PathSearch | undefined;
  readonly #turnover: PathTurnover;
  readonly #lossReport: LossReport;
  readonly #endReport: EndReport;
  readonly #ending = new AbortController();
  #grant: VerifiedGrant<'client'>;
  #lease: TunnelLease;
  #relay: PathRelay;
  #isAccepted = false;
  #isLeaving = false;
  /** Why the control plane will not have it taken up again. */
  #verdict: ZtnaError | undefined;
  #suspension: Suspension | undefined;

  /** Carries out the handshake of the first path and opens a tunnel on it. Throws as `Path.open`. */
  static async open(options: PathOptions & Omit<TunnelOptions, 'path'>): Promise<Tunnel> {
    return new Tunnel({ ...options, path: await Path.open(options) });
  }

  /** Throws ERR_TUNNEL_PATH_LOST, or what the path was closed with. */
  constructor({ path, clock, source, rekey, budget, replayBudget }: TunnelOptions) {
    const { permit, relay, transport } = path;
    this.#grant = permit.grant;
    this.#lease = new TunnelLease(permit.grant, clock);
    this.#relay = relay;
    this.#secret = resumeSecretOf(transport);
    this.#endReport = new EndReport(() => this.#grant.decision);
    this.closed = this.#endReport.told;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.accepted = promise;
    const { parts, isDraining } = path.take();
    this.#turnover = new PathTurnover({ isDraining, rekey });
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
      mayPass: () => this.#lease.isLive,
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
        this.#turnover.noteDraining();
      },
    });
    this.#lossReport = new LossReport({
      watcher: () => this.watcher,
      isDetached: () => this.isDetached,
      holdEndMs: () => (clock.nowMs() ?? Date.now()) + this.holdLeftMs,
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
    if (this.#keeper.hasEnded || !this.#lease.renew(sequence, untilMs)) return;
    if (!this.isDetached) this.#tell('onVerified');
  }

  /** Enforces the lease, and moves to another path when that is due. To be called a few times a second. */
  tick(): void {
    if (this.#keeper.hasEnded || this.isDetached) return;
    if (this.#lease.isLive) this.#turnOver();
    else this.#keeper.lose(leaseExpired());
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
    if (fix !== undefined) this.#lossReport.suspended(this.#suspension, !isKnown);
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
      this.#lease = this.#lease.following(grant);
      this.#grant = grant;
      try {
        this.#keeper.replace(parts, resumed);
      } catch (error) {
        this.#grant = before.grant;
        this.#lease = before.lease;
        throw error;
      }
      this.#relay = path.relay;
      this.#clearSuspension();
      this.#turnover.noteReplaced(this.#keeper.endpoint.frameCount, isDraining);
    } catch (error) {
      path.drop();
      throw error;
    }
    this.#tellReplaced();
  }

  /** Ends the tunnel at both ends. When it has ended already, this may still say why. */
  end(code: ErrorCode, reason: string): void {
    if (this.#keeper.hasEnded) this.#endReport.tell(new ZtnaError(code, { reason }));
    else this.#keeper.close(code, reason);
  }

  /** Resolves when nothing of the tunnel is left running. */
  async gone(): Promise<void> {
    await this.#keeper.gone();
    this.#endReport.stop();
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
        this.#turnover.noteFailed();
        this.#lossReport.tell();
      },
      onRefused: (error) => {
        this.#verdict = asLoss(error);
        this.#keeper.close(this.#verdict.code, reasonOf(this.#verdict));
      },
      onAway: () => {
        this.#tell('onAway');
      },
      signal: this.#ending.signal,
    });
  }

  #turnOver(): void {
    const due = this.#turnover.due(this.#keeper, this.#lease);
    if (due === 'give_up') {
      this.#keeper.cut(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: 'path_congested' }));
    } else if (due !== undefined) {
      this.move(due === 'leave_relay' ? [this.#relay.id] : []);
    }
  }

  #clearSuspension(): void {
    if (!this.#suspension) return;
    this.#suspension = undefined;
    this.onSuspension();
  }

  #tellReplaced(): void {
    const wasLossTold = this.#lossReport.mended();
    this.onPath();
    if (this.isOpen && !this.isDetached) this.#tell(wasLossTold ? 'onResumed' : 'onMoved');
  }

  #onDetached(error: ZtnaError): void {
    const reason = reasonOf(error);
    if (!this.#isAccepted) {
      this.#keeper.close(error.code, reason);
      return;
    }
    // A move may be about to end well; and a denial that the relay alone has spoken of, the control plane will explain.
    const isEarly = this.#search?.isRunning === true || errorRow(error.code).family === 'denied';
    this.#lossReport.lost(reason, isEarly);
    const isSuspended = error.code === 'ERR_TUNNEL_SUSPENDED';
    const isRelayWell = isSuspended || reason === 'path_congested';
    if (!isRelayWell) this.#source?.noteLost(this.#relay, error);
    this.#search?.start(isRelayWell ? [] : [this.#relay.id]);
  }

  #onEnd(end: ZtnaError): void {
    const error = this.#verdict ?? (this.#suspension ? asNotMended(end, this.#suspension) : end);
    this.#lossReport.stop();
    this.#ending.abort();
    this.#endReport.tellExplained(error);
  }

  #tell(what: 'onVerified' | 'onResumed' | 'onMoved' | 'onAway'): void {
    this.watcher[what]?.();
  }
}

function leaseExpired(): ZtnaError {
  return new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' });
}
