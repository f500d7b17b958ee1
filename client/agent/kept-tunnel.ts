import { errorRow, toZtnaError, type ZtnaError } from '../../protocol/index.ts';
import {
  fullJitterDelayMs,
  redialCapMs,
  steadyAfterMs,
  waitToRedial,
} from '../../protocol/host/index.ts';
import { toIsoTime, type TunnelReporter } from './tunnel-event.ts';
import { asLoss, explainEnd } from './tunnel-end.ts';
import { watchFor } from './tunnel-report.ts';
import type { Permit } from './permit.ts';
import type { Tunnel } from './tunnel.ts';

/** How often a tunnel that was replaced is looked at: it is closed with its last stream. */
const sweepEveryMs = 1_000;

/** The agents of a connector that stops turn to others within this long. */
const leaveWithinMs = 1_000;

/** What a kept tunnel needs of a tunnel. */
export type OpenedTunnel = Pick<
  Tunnel,
  | 'id'
  | 'grant'
  | 'untilMs'
  | 'isOpen'
  | 'isDetached'
  | 'isLeaving'
  | 'holdLeftMs'
  | 'streamCount'
  | 'accepted'
  | 'closed'
  | 'watcher'
  | 'end'
  | 'hurry'
  | 'openStream'
>;

/** What it needs of the agent. */
export interface TunnelSource {
  requestPermit(app: string): Promise<Permit>;
  openTunnel(permit: Permit): Promise<OpenedTunnel>;
  /** Hands a permission back that will not be used. */
  giveUp(permit: Permit): void;
  closeTunnel(tunnel: OpenedTunnel, reason: string): Promise<void>;
}

export interface KeptTunnelOptions {
  readonly agent: TunnelSource;
  readonly app: string;
  readonly reporter: TunnelReporter;
  /** Called with the first permission, before the tunnel is opened: the moment to listen. */
  readonly onPermit: (permit: Permit) => Promise<void>;
}

/**
 * The way to one app that goes on whatever happens to paths, relays and connectors. While its tunnel is detached new
 * connections wait for it; when its connector is away or about to stop and another can be had, they get a new tunnel, and
 * the old one serves those that it has. A tunnel that ended is replaced, its streams were reset. It ends when access has.
 *
 *   starting ──open──▶ open ──detached──▶ waiting ──resumed, or a tunnel to another connector──▶ open
 *   open ──connector stops──▶ open, on a tunnel to another connector
 *                      open, waiting ──tunnel ended──▶ redialling ──open──▶ open
 *   any ──refused for good, or close()──▶ ended
 */
export class KeptTunnel {
  /** Why it ended; undefined after `close`. Never rejects. */
  readonly ended: Promise<ZtnaError | undefined>;
  readonly #options: KeptTunnelOptions;
  readonly #stopping = new AbortController();
  #end!: (error: ZtnaError | undefined) => void;
  #current: OpenedTunnel | undefined;
  /** Tunnels that were replaced while their streams could still be taken up. */
  readonly #leaving = new Set<OpenedTunnel>();
  #sweeper: NodeJS.Timeout | undefined;
  #soon: NodeJS.Timeout | undefined;
  #replacing: Promise<void> | undefined;
  #isAway = false;
  #waiting = new Set<(tunnel: OpenedTunnel | undefined) => void>();

  constructor(options: KeptTunnelOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** The tunnel while it is open and has a path. */
  get current(): OpenedTunnel | undefined {
    const tunnel = this.#current;
    return tunnel?.isOpen === true && !tunnel.isDetached ? tunnel : undefined;
  }

  /** How long the tunnel will be kept without a path, if it has none. */
  get holdLeftMs(): number {
    return this.#current?.holdLeftMs ?? 0;
  }

  /** Opens the first tunnel. Throws what refused it. */
  async start(): Promise<void> {
    const { agent, app, onPermit } = this.#options;
    const permit = await agent.requestPermit(app);
    await onPermit(permit);
    let tunnel: OpenedTunnel;
    try {
      tunnel = await this.#open(permit);
    } catch (error) {
      // The relay or connector may have gone between decision and path; another permit may name another.
      if (!isMendable(toZtnaError(error))) throw error;
      tunnel = await this.#open(await agent.requestPermit(app));
    }
    void this.#keep(tunnel);
  }

  /** The tunnel as soon as there is one; undefined when `signal` aborts or all has ended before. */
  async whenOpen(signal: AbortSignal): Promise<OpenedTunnel | undefined> {
    if (this.current) return this.current;
    if (signal.aborted || this.#isStopping()) return undefined;
    if (this.#isAway) this.#startReplacing();
    return new Promise((resolve) => {
      const finish = (tunnel: OpenedTunnel | undefined): void => {
        this.#waiting.delete(finish);
        signal.removeEventListener('abort', give);
        resolve(tunnel);
      };
      const give = (): void => finish(undefined);
      this.#waiting.add(finish);
      signal.addEventListener('abort', give, { once: true });
    });
  }

  /** Closes the tunnel at both ends and says so to the control plane. Safe to call twice. */
  async close(reason: string): Promise<void> {
    this.#stop(undefined);
    const tunnels = [...this.#leaving];
    if (this.#current) tunnels.push(this.#current);
    if (this.#current?.isOpen === true) {
      this.#options.reporter.report({ event: 'closed', reason, code: 'ERR_TUNNEL_CLOSED' });
    }
    const { agent } = this.#options;
    await Promise.all(tunnels.map((tunnel) => agent.closeTunnel(tunnel, reason)));
  }

  /** Opens a tunnel. Local connections may use it from the handshake on; `open` is told at the connector's ACCEPT. */
  async #open(permit: Permit): Promise<OpenedTunnel> {
    const { agent, reporter } = this.#options;
    const tunnel = await agent.openTunnel(permit);
    const before = this.#current;
    this.#current = tunnel;
    if (this.#isStopping()) tunnel.end('ERR_TUNNEL_CLOSED', 'not_wanted');
    else this.#release(tunnel);
    try {
      await tunnel.accepted;
    } catch (error) {
      if (before?.isOpen === true) this.#current = before;
      throw explainEnd(toZtnaError(error));
    }
    reporter.report({ event: 'open', tunnel: tunnel.id, until: toIsoTime(tunnel.untilMs) });
    this.#isAway = false;
    this.#watch(tunnel);
    return tunnel;
  }

  #watch(tunnel: OpenedTunnel): void {
    const told = watchFor(tunnel, this.#options.reporter);
    const isCurrent = (): boolean => this.#current === tunnel;
    tunnel.watcher = {
      onVerified: () => {
        if (isCurrent()) told.onVerified();
      },
      onDetached: (reason, untilMs) => {
        if (isCurrent()) told.onDetached(reason, untilMs);
      },
      onSuspended: (suspension, untilMs) => {
        if (isCurrent()) told.onSuspended(suspension, untilMs);
      },
      onResumed: () => {
        if (!isCurrent()) return;
        this.#isAway = false;
        told.onResumed();
        this.#release(tunnel);
      },
      onMoved: () => {
        if (!isCurrent()) return;
        told.onMoved();
        this.#release(tunnel);
      },
      onAway: () => {
        if (!isCurrent()) return;
        this.#isAway = true;
        if (this.#waiting.size > 0) this.#startReplacing();
      },
      onLeaving: () => {
        if (isCurrent()) this.#replaceSoon();
      },
    };
    if (tunnel.isLeaving) this.#replaceSoon();
  }

  /** In a moment, so that all the agents of a connector do not ask at once. */
  #replaceSoon(): void {
    clearTimeout(this.#soon);
    const delayMs = fullJitterDelayMs(0, { baseMs: leaveWithinMs, capMs: leaveWithinMs });
    this.#soon = setTimeout(() => {
      this.#startReplacing();
    }, delayMs);
  }

  #startReplacing(): void {
    const old = this.#current;
    if (this.#replacing || !old || !isReplaceable(old) || this.#isStopping()) return;
    this.#replacing = this.#replace(old).finally(() => {
      this.#replacing = undefined;
    });
  }

  /** Opens a tunnel to another connector beside one whose own is away or about to stop. */
  async #replace(old: OpenedTunnel): Promise<void> {
    const { agent, app } = this.#options;
    try {
      const permit = await agent.requestPermit(app);
      const isWanted = this.#current === old && isReplaceable(old) && !this.#isStopping();
      if (!isWanted || permit.verified.grant.instance === old.grant.instance) {
        agent.giveUp(permit); // it is back itself
        old.hurry();
        return;
      }
      const tunnel = await this.#open(permit);
      this.#leaving.add(old);
      this.#sweeper ??= setInterval(() => {
        this.#sweep();
      }, sweepEveryMs);
      void this.#keep(tunnel);
    } catch {
      // There is no other connector; the next answer that ours is away asks again, and one that stops is left in time.
      if (old.isLeaving) this.#replaceSoon();
    }
  }

  /** Closes replaced tunnels that nobody uses any more. */
  #sweep(): void {
    for (const tunnel of [...this.#leaving]) {
      if (tunnel.isOpen && tunnel.streamCount === 0) {
        this.#leaving.delete(tunnel);
        void this.#options.agent.closeTunnel(tunnel, 'replaced');
      }
    }
    if (this.#leaving.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  async #keep(first: OpenedTunnel): Promise<void> {
    let tunnel: OpenedTunnel | undefined = first;
    let attempt = 0;
    while (tunnel) {
      const openedAtMs = performance.now();
      const error = explainEnd(await tunnel.closed);
      await this.#replacing;
      if (this.#isStopping()) return;
      this.#leaving.delete(tunnel);
      if (this.#current !== tunnel && isMendable(error)) {
        this.#options.reporter.say(`connections of the tunnel before were reset: ${error.message}`);
        return;
      }
      this.#isAway = false;
      this.#options.reporter.report({ event: 'closed', reason: error.reason, code: error.code });
      if (!isMendable(error)) {
        this.#stop(error);
        return;
      }
      if (performance.now() - openedAtMs >= steadyAfterMs) attempt = 0;
      const lostAtMs = performance.now();
      do tunnel = await this.#redial(attempt++, performance.now() - lostAtMs);
      while (!tunnel && !this.#isStopping());
    }
  }

  /** One attempt, after a wait; undefined when it failed or is not wanted any more. */
  async #redial(attempt: number, lostForMs: number): Promise<OpenedTunnel | undefined> {
    const { agent, app, reporter } = this.#options;
    const capMs = redialCapMs(lostForMs);
    try {
      const { signal } = this.#stopping;
      await waitToRedial(fullJitterDelayMs(attempt, { capMs }), signal);
      if (signal.aborted) return undefined;
      return await this.#open(await agent.requestPermit(app));
    } catch (thrown) {
      if (this.#isStopping()) return undefined;
      const error = toZtnaError(thrown);
      // The agent leaves a control plane whose keys do not bear out what it answers; another may answer the next time.
      const isMended = isMendable(error) || error.code === 'ERR_STATEMENT_REFUSED';
      if (isMended) reporter.say(`redialling: ${error.message} [${error.code}]`);
      else this.#stop(asLoss(error));
      return undefined;
    }
  }

  #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #release(tunnel: OpenedTunnel | undefined): void {
    for (const give of [...this.#waiting]) give(tunnel);
  }

  #stop(error: ZtnaError | undefined): void {
    this.#stopping.abort();
    clearInterval(this.#sweeper);
    clearTimeout(this.#soon);
    this.#release(undefined);
    this.#end(error);
  }
}

/** True for an open tunnel that new connections had better not use. */
function isReplaceable(tunnel: OpenedTunnel): boolean {
  return tunnel.isOpen && (tunnel.isDetached || tunnel.isLeaving);
}

/** The exit code of access that ended while connected: a lost path is redialled, lost access never is. */
const accessEndedCode = errorRow('ERR_TUNNEL_REVOKED').exitCode;

/** True when a new tunnel may succeed where this one ended: the error table's word, in one place. */
function isMendable(error: ZtnaError): boolean {
  const { retry, exitCode } = errorRow(error.code);
  return retry === 'backoff' && exitCode !== accessEndedCode;
}
