import { setTimeout as delay } from 'node:timers/promises';
import { errorRow, toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { fullJitterDelayMs, redialCapMs, steadyAfterMs } from '../../protocol/host/index.ts';
import { toIsoTime, type TunnelReporter } from './tunnel-event.ts';
import { explainEnd } from './tunnel-end.ts';
import type { Permit } from './agent.ts';
import type { Tunnel } from './tunnel.ts';

/** What a kept tunnel needs of a tunnel. */
export type OpenedTunnel = Pick<
  Tunnel,
  'id' | 'untilMs' | 'isOpen' | 'accepted' | 'closed' | 'onVerified' | 'end' | 'openStream'
>;

/** What it needs of the agent. */
export interface TunnelSource {
  requestPermit(app: string): Promise<Permit>;
  openTunnel(permit: Permit): Promise<OpenedTunnel>;
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
 * The way to one app that goes on when a path is lost: a new tunnel under a new grant replaces the lost one, whose
 * streams were reset. It ends when the loss is one that redialling cannot mend.
 *
 *   starting ──open──▶ open ──lost──▶ redialling ──open──▶ open
 *   any ──refused for good, or close()──▶ ended
 */
export class KeptTunnel {
  /** Why it ended; undefined after `close`. Never rejects. */
  readonly ended: Promise<ZtnaError | undefined>;
  readonly #options: KeptTunnelOptions;
  readonly #stopping = new AbortController();
  #end!: (error: ZtnaError | undefined) => void;
  #current: OpenedTunnel | undefined;
  #waiting = new Set<(tunnel: OpenedTunnel | undefined) => void>();

  constructor(options: KeptTunnelOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** The tunnel while it is open. */
  get current(): OpenedTunnel | undefined {
    return this.#current?.isOpen === true ? this.#current : undefined;
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
    const tunnel = this.#current;
    if (!tunnel) return;
    if (tunnel.isOpen) {
      this.#options.reporter.report({ event: 'closed', reason, code: 'ERR_TUNNEL_CLOSED' });
    }
    await this.#options.agent.closeTunnel(tunnel, reason);
  }

  /** Opens a tunnel. Local connections may use it from the handshake on; `open` is told at the connector's ACCEPT. */
  async #open(permit: Permit): Promise<OpenedTunnel> {
    const { agent, reporter } = this.#options;
    const tunnel = await agent.openTunnel(permit);
    const until = (): string => toIsoTime(tunnel.untilMs);
    this.#current = tunnel;
    if (this.#isStopping()) tunnel.end('ERR_TUNNEL_CLOSED', 'not_wanted');
    else this.#release(tunnel);
    try {
      await tunnel.accepted;
    } catch (error) {
      throw explainEnd(toZtnaError(error));
    }
    reporter.report({ event: 'open', tunnel: tunnel.id, until: until() });
    tunnel.onVerified = () => {
      reporter.report({ event: 'verified', until: until() });
    };
    return tunnel;
  }

  async #keep(first: OpenedTunnel): Promise<void> {
    let tunnel: OpenedTunnel | undefined = first;
    let attempt = 0;
    while (tunnel) {
      const openedAtMs = performance.now();
      const error = explainEnd(await tunnel.closed);
      if (this.#isStopping()) return;
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
      await delay(fullJitterDelayMs(attempt, { capMs }), undefined, { signal });
      return await this.#open(await agent.requestPermit(app));
    } catch (thrown) {
      if (this.#isStopping()) return undefined;
      const error = toZtnaError(thrown);
      if (isMendable(error)) reporter.say(`redialling: ${error.message} [${error.code}]`);
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
    this.#release(undefined);
    this.#end(error);
  }
}

/** The exit code of access that ended while connected: a lost path is redialled, lost access never is. */
const accessEndedCode = errorRow('ERR_TUNNEL_REVOKED').exitCode;

/** True when a new tunnel may succeed where this one ended: the error table's word, in one place. */
function isMendable(error: ZtnaError): boolean {
  const { retry, exitCode } = errorRow(error.code);
  return retry === 'backoff' && exitCode !== accessEndedCode;
}

/** A refusal to open again, told as what it is to someone who was connected: access that has ended. */
function asLoss(error: ZtnaError): ZtnaError {
  if (errorRow(error.code).exitCode !== errorRow('ERR_POLICY_DENIED').exitCode) return error;
  return new ZtnaError('ERR_TUNNEL_REVOKED', {
    message: 'access ended while connected',
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.ref === undefined ? {} : { ref: error.ref }),
    reason: 'denied',
    cause: error,
  });
}
