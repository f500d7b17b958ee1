import { createPublicKey } from 'node:crypto';
import type { WebSocket } from 'ws';
import {
  ClientHandshake,
  ClientResume,
  type ResumedPath,
  type ResumeSecret,
  type Transport,
  type VerifiedPermit,
} from '../../protocol/index.ts';
import { PathInbox, type Identity, type PathParts } from '../../protocol/host/index.ts';
import type { PathRelay } from './permit.ts';

/** From the upgrade to the connector's ACCEPT, and for each answer before. */
export const openWithinMs = 10_000;

/** The same for a later path: another relay may be better, and one's own tunnel waits. */
const resumeWithinMs = 5_000;

export interface PathOptions {
  readonly permit: VerifiedPermit;
  readonly relay: PathRelay;
  readonly identity: Pick<Identity, 'rootId' | 'noiseKey'>;
  /** A data WebSocket that this relay has just accepted for the permit's grant. */
  readonly webSocket: WebSocket;
}

/** A path at whose other end the connector of the permit has proved itself. Its owner uses it up or drops it. */
export class Path {
  readonly permit: VerifiedPermit;
  readonly relay: PathRelay;
  readonly transport: Transport;
  readonly #webSocket: WebSocket;
  readonly #inbox: PathInbox;

  /**
   * Carries out the handshake. Throws ERR_HANDSHAKE_FAILED when the other end is not the connector of the permit,
   * ERR_HANDSHAKE_TIMEOUT, or the code with which the path was closed; then the WebSocket is closed too.
   */
  static async open({ permit, relay, identity, webSocket }: PathOptions): Promise<Path> {
    const inbox = new PathInbox(webSocket);
    try {
      const handshake = new ClientHandshake({
        permit,
        rootId: identity.rootId,
        relay: relay.id,
        deviceKeys: {
          privateKey: identity.noiseKey,
          publicKey: createPublicKey(identity.noiseKey),
        },
      });
      webSocket.send(handshake.message1());
      const withinMs = permit.grant.generation === 1 ? openWithinMs : resumeWithinMs;
      const { message3, transport } = handshake.receiveMessage2(await inbox.next(withinMs));
      webSocket.send(message3);
      return new Path({ permit, relay, transport }, webSocket, inbox);
    } catch (error) {
      inbox.release();
      webSocket.terminate();
      throw error;
    }
  }

  private constructor(
    of: { permit: VerifiedPermit; relay: PathRelay; transport: Transport },
    webSocket: WebSocket,
    inbox: PathInbox,
  ) {
    this.permit = of.permit;
    this.relay = of.relay;
    this.transport = of.transport;
    this.#webSocket = webSocket;
    this.#inbox = inbox;
  }

  /**
   * Proves, and has proved, that this is the tunnel of that secret. Throws ERR_TUNNEL_RESUME_REFUSED, or as the handshake.
   */
  async prove(secret: ResumeSecret): Promise<ResumedPath> {
    const { transport } = this;
    const resume = new ClientResume({ secret, transport });
    this.#webSocket.send(Buffer.concat(transport.sealer.seal(resume.request())));
    return resume.receive(transport.opener.open(await this.#inbox.next(resumeWithinMs)));
  }

  /**
   * What moves records from here on, within this turn; `isDraining` when the relay has said that it is about to stop.
   * Throws what the path was closed with.
   */
  take(): { readonly parts: PathParts; readonly isDraining: boolean } {
    const { sealer, opener } = this.transport;
    try {
      const { records, isDraining } = this.#inbox.take();
      return { parts: { webSocket: this.#webSocket, sealer, opener, early: records }, isDraining };
    } catch (error) {
      this.#webSocket.terminate(); // nobody else has it
      throw error;
    }
  }

  /** Cuts it. */
  drop(): void {
    this.#inbox.release();
    this.#webSocket.terminate();
  }
}
