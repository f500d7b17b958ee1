import {
  grantHeader,
  instanceHeader,
  isId,
  slotPath,
  toZtnaError,
  tunnelPath,
  verifyGrantAtRelay,
  ZtnaError,
  type Bundle,
  type ConnectorId,
  type RelayId,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import type { ControlClock, Logger, RevocationFeed } from '../../protocol/host/index.ts';
import { refuse } from './close.ts';
import type { DataSocket } from './data-server.ts';
import { limits } from './limits.ts';
import type { Slots } from './slots.ts';
import type { Tunnels } from './tunnels.ts';
import { UsedGrants } from './used-grants.ts';

export interface AdmissionOptions {
  readonly relay: RelayId;
  readonly bundle: () => Bundle;
  readonly clock: ControlClock;
  readonly feed: RevocationFeed;
  readonly slots: Slots;
  readonly tunnels: Tunnels;
  readonly onRefused: (error: ZtnaError, peer: string, address: string) => void;
  readonly logger: Logger;
}

/** Decides which authenticated sockets become tunnels and slots. Everything refused is told one code and closed. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #used = new UsedGrants();
  #isDraining = false;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Refuses everything from here on. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Takes a socket in, or closes it. Never rejects. */
  async admit(socket: DataSocket): Promise<void> {
    try {
      this.#refuseWhenDraining();
      if (socket.path === tunnelPath) await this.#admitTunnel(socket);
      else if (socket.path === slotPath) this.#admitSlot(socket);
      else throw new ZtnaError('ERR_MESSAGE_UNEXPECTED', { reason: 'path_unknown' });
    } catch (error) {
      const refusal = toZtnaError(error);
      if (refusal.code === 'ERR_INTERNAL') {
        this.#options.logger.error('admission_failed', { message: String(refusal.cause) });
      }
      refuse(socket.ws, refusal);
      this.#options.onRefused(refusal, socket.peer.id, socket.peer.address);
    }
  }

  #refuseWhenDraining(): void {
    if (this.#isDraining) throw new ZtnaError('ERR_RELAY_DRAINING', { reason: 'draining' });
  }

  #admitSlot(socket: DataSocket): void {
    const { peer, ws } = socket;
    if (peer.role !== 'connector') throw new ZtnaError('ERR_IDENTITY_ROLE');
    const instance = socket.header(instanceHeader);
    if (!isId('instance', instance)) {
      throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'instance_missing' });
    }
    const nowMs = this.#requireReady();
    const connector = peer.id as ConnectorId;
    if (nowMs >= peer.certificateUntilMs) throw certificateExpired();
    const entry = this.#options.feed.isRevokedAfter({ ...nobody, connector }, -1, -1);
    if (entry) throw new ZtnaError('ERR_IDENTITY_REVOKED', { reason: entry.reason });
    const { certificateUntilMs } = peer;
    this.#options.slots.add(ws, { connector, instance, certificateUntilMs }, performance.now());
  }

  async #admitTunnel(socket: DataSocket): Promise<void> {
    const { peer, ws } = socket;
    if (peer.role !== 'device') throw new ZtnaError('ERR_IDENTITY_ROLE');
    const { certificateUntilMs } = peer;
    const grant = await this.#verifyGrant(socket);
    const { clock, slots, tunnels } = this.#options;
    this.#refuseWhenDraining(); // it may have begun meanwhile
    // From here no step waits until the tunnel can be reached by renewals and revocations.
    const nowMs = clock.require();
    if (nowMs >= certificateUntilMs) throw certificateExpired();
    this.#used.use(grant, nowMs);
    const tunnel = tunnels.open({ grant, client: ws, certificateUntilMs, clock });
    const { connector, instance, statement } = grant;
    const slot = { connector, instance, tunnel: grant.tunnel, grant: statement };
    try {
      tunnel.join(await slots.assign(slot, tunnel.signal));
    } catch (error) {
      tunnel.end(toZtnaError(error));
    }
  }

  async #verifyGrant(socket: DataSocket): Promise<VerifiedGrant> {
    const statement = socket.header(grantHeader);
    if (statement === undefined)
      throw new ZtnaError('ERR_GRANT_REFUSED', { reason: 'grant_missing' });
    const { feed, relay, bundle } = this.#options;
    const check = (nowMs: number) =>
      verifyGrantAtRelay(statement, { bundle: bundle(), relay, nowMs });
    const grant = check(this.#requireReady());
    if (grant.device !== socket.peer.id) {
      throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'other_device' });
    }
    if (!(await feed.waitFor(grant.position, grant.incarnation, limits.logWaitMs))) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'log_behind' });
    }
    const entry = feed.isRevokedAfter(grant, grant.incarnation, grant.position);
    if (entry) throw new ZtnaError('ERR_GRANT_REVOKED', { reason: entry.reason });
    // The wait may have outlasted it.
    return check(this.#requireReady());
  }

  /** Control time, once the time and the revocation log are known. Throws ERR_RELAY_UNAVAILABLE before. */
  #requireReady(): number {
    if (this.#options.feed.completeTo < 0) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'log_unknown' });
    }
    return this.#options.clock.require();
  }

  /** Forgets what can no longer matter. */
  sweep(): void {
    const nowMs = this.#options.clock.nowMs();
    if (nowMs !== undefined) this.#used.sweep(nowMs);
  }
}

/** Subjects that no entry is about. */
const nobody = { user: '', session: '', device: '', app: '', connector: '', tunnel: '' };

function certificateExpired(): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_UNAUTHENTICATED', { reason: 'certificate_expired' });
}
