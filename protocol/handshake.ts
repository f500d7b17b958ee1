import * as v from 'valibot';
import { ZtnaError } from './errors.ts';
import {
  grantDigest,
  maxGrantLength,
  maxRosterLength,
  readGrantClaim,
  type Grant,
  type VerifiedGrant,
  type VerifiedPermit,
} from './grant.ts';
import { decodeMessage, encodeMessage } from './message.ts';
import { tagBytes } from './noise-symmetric.ts';
import {
  exportSecret,
  NoiseInitiator,
  NoiseResponder,
  type AuthenticatedPeer,
  type NoiseKeyPair,
  type NoiseResult,
} from './noise-xk.ts';
import { RecordOpener, RecordSealer } from './record.ts';
import type { Bundle } from './bundle.ts';
import type { RelayId } from './id.ts';

/*
 *   client                              connector
 *   message 1  48 bytes         ─────▶
 *                               ◀─────  message 2  48 bytes
 *   message 3  {grant, roster}  ─────▶  grant verified, then admitted
 *   records                     ◀────▶  records
 *
 * The client may send records right behind message 3; the connector reads them only once the client is admitted.
 */

/** Messages 1 and 2, in bytes: an ephemeral key and the tag of an empty payload. */
export const handshakeMessageBytes = 32 + tagBytes;

const maxMessage3PayloadBytes = maxGrantLength + maxRosterLength + 32;

/** The largest message 3, in bytes. */
export const maxHandshakeMessage3Bytes = 32 + 2 * tagBytes + maxMessage3PayloadBytes;

const message3Schema = v.strictObject({
  grant: v.pipe(v.string(), v.maxLength(maxGrantLength)),
  roster: v.pipe(v.string(), v.maxLength(maxRosterLength)),
});

const empty = Buffer.alloc(0);

declare const finished: unique symbol;

/** Both directions of one path. It exists only where a handshake finished and, at the connector, a grant was verified. */
export interface Transport {
  readonly [finished]: true;
  readonly sealer: RecordSealer;
  readonly opener: RecordOpener;
  /** The same at both ends, different for every handshake: what may be bound to this path. */
  readonly handshakeHash: Buffer;
  /** 32 bytes for one purpose, known to both ends of this path and to nobody else. */
  readonly exportSecret: (label: string) => Buffer;
}

/**
 * What both ends must agree on, as one unambiguous text of bytes: each member behind its length (2 bytes,
 * big-endian), in this order: `ztna-tunnel`, wire version (4 bytes), root id (32), tunnel, generation (8), app,
 * connector, relay, SHA-256 of the grant statement (32). Numbers are big-endian, ids are ASCII.
 * Throws ERR_INTERNAL for a root id that is none.
 */
export function encodePrologue(
  grant: Pick<Grant, 'version' | 'tunnel' | 'generation' | 'app' | 'connector'>,
  path: { readonly rootId: string; readonly relay: RelayId; readonly grantStatement: string },
): Buffer {
  if (!/^[0-9a-f]{64}$/.test(path.rootId)) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'not a root id' });
  }
  const version = Buffer.alloc(4);
  version.writeUInt32BE(grant.version);
  const generation = Buffer.alloc(8);
  generation.writeBigUInt64BE(BigInt(grant.generation));
  const members = [
    Buffer.from('ztna-tunnel'),
    version,
    Buffer.from(path.rootId, 'hex'),
    Buffer.from(grant.tunnel),
    generation,
    Buffer.from(grant.app),
    Buffer.from(grant.connector),
    Buffer.from(path.relay),
    grantDigest(path.grantStatement),
  ];
  return Buffer.concat(
    members.flatMap((member) => {
      const length = Buffer.alloc(2);
      length.writeUInt16BE(member.length);
      return [length, member];
    }),
  );
}

/** The client's side of one handshake: `message1`, then `receiveMessage2`, each once. */
export class ClientHandshake {
  readonly #noise: NoiseInitiator;
  readonly #permit: VerifiedPermit;

  /** Throws ERR_GRANT_MISMATCH when the permit does not name this relay. */
  constructor(options: {
    readonly permit: VerifiedPermit;
    readonly rootId: string;
    readonly relay: RelayId;
    /** The device's X25519 static. */
    readonly deviceKeys: NoiseKeyPair;
  }) {
    const { permit, rootId, relay } = options;
    if (!permit.grant.relays.includes(relay)) throw new ZtnaError('ERR_GRANT_MISMATCH');
    this.#permit = permit;
    this.#noise = new NoiseInitiator({
      prologue: encodePrologue(permit.grant, {
        rootId,
        relay,
        grantStatement: permit.grant.statement,
      }),
      staticKeys: options.deviceKeys,
      remoteStatic: permit.connectorKey,
    });
  }

  message1(): Buffer {
    return this.#noise.writeMessage1(empty);
  }

  /** Proves the connector and ends the client's part. Throws ERR_HANDSHAKE_FAILED, and then nothing may be sent. */
  receiveMessage2(message2: Uint8Array): {
    readonly message3: Buffer;
    readonly transport: Transport;
  } {
    checkEmpty(this.#noise.readMessage2(message2));
    const payload = encodeMessage(message3Schema, {
      grant: this.#permit.grant.statement,
      roster: this.#permit.rosterStatement,
    });
    const message3 = this.#noise.writeMessage3(Buffer.from(payload));
    return { message3, transport: toTransport(this.#noise.finish(), 'initiator') };
  }
}

/** The connector's side of one handshake: `receiveMessage1`, then `receiveMessage3`, each once. */
export class ConnectorHandshake {
  readonly #noise: NoiseResponder;
  readonly #grantStatement: string;

  /**
   * Takes the grant as the relay handed it over: its signature is checked, so that strangers cost no key agreement,
   * but it is believed only once message 3 has brought the same text. Throws ERR_STATEMENT_REFUSED,
   * ERR_MESSAGE_TOO_LARGE, ERR_HANDSHAKE_VERSION, and ERR_GRANT_MISMATCH when it does not name this relay.
   */
  constructor(options: {
    readonly grantStatement: string;
    readonly bundle: Bundle;
    readonly relay: RelayId;
    /** The connector's X25519 static. */
    readonly connectorKeys: NoiseKeyPair;
  }) {
    const { grantStatement, bundle, relay } = options;
    const claim = readGrantClaim(grantStatement, bundle);
    if (!claim.relays.includes(relay)) throw new ZtnaError('ERR_GRANT_MISMATCH');
    this.#grantStatement = grantStatement;
    this.#noise = new NoiseResponder({
      prologue: encodePrologue(claim, { rootId: bundle.rootId, relay, grantStatement }),
      staticKeys: options.connectorKeys,
    });
  }

  /** Answers message 1 with message 2. Throws ERR_HANDSHAKE_FAILED. */
  receiveMessage1(message1: Uint8Array): Buffer {
    checkEmpty(this.#noise.readMessage1(message1));
    return this.#noise.writeMessage2(empty);
  }

  /**
   * Proves the client's key. Throws ERR_HANDSHAKE_FAILED, ERR_MESSAGE_MALFORMED or ERR_MESSAGE_TOO_LARGE for a
   * proved client's bad payload, and ERR_GRANT_MISMATCH when it presents another grant than the relay did.
   */
  receiveMessage3(message3: Uint8Array): ProvedClient {
    const payload = this.#noise.readMessage3(message3);
    const { grant, roster } = decodeMessage(message3Schema, payload, maxMessage3PayloadBytes);
    if (grant !== this.#grantStatement) throw new ZtnaError('ERR_GRANT_MISMATCH');
    return new ProvedClient(this.#noise.finish(), grant, roster);
  }
}

/**
 * A client that has proved its key but may do nothing yet. Its transport comes out only against its own grant,
 * verified for this connector with `verifyGrantAtConnector`, and only once.
 */
export class ProvedClient {
  readonly grantStatement: string;
  readonly rosterStatement: string;
  readonly peerStatic: AuthenticatedPeer;
  #result: NoiseResult | undefined;

  /** Only `ConnectorHandshake` has what this takes. */
  constructor(result: NoiseResult, grantStatement: string, rosterStatement: string) {
    this.#result = result;
    this.peerStatic = result.peerStatic;
    this.grantStatement = grantStatement;
    this.rosterStatement = rosterStatement;
  }

  /** Throws ERR_GRANT_MISMATCH for another client's grant, and ERR_INTERNAL the second time. */
  admit(grant: VerifiedGrant<'connector'>): Transport {
    const isOwnGrant =
      grant.statement === this.grantStatement &&
      Buffer.from(grant.deviceKey, 'base64url').equals(this.peerStatic);
    if (!isOwnGrant) throw new ZtnaError('ERR_GRANT_MISMATCH');
    const result = this.#result;
    if (!result)
      throw new ZtnaError('ERR_INTERNAL', { message: 'this client was admitted before' });
    this.#result = undefined;
    return toTransport(result, 'responder');
  }
}

function checkEmpty(payload: Buffer): void {
  if (payload.length > 0) throw new ZtnaError('ERR_HANDSHAKE_FAILED');
}

function toTransport(result: NoiseResult, side: 'initiator' | 'responder'): Transport {
  const { initiatorKey, responderKey, handshakeHash } = result;
  const isInitiator = side === 'initiator';
  return {
    sealer: new RecordSealer(isInitiator ? initiatorKey : responderKey),
    opener: new RecordOpener(isInitiator ? responderKey : initiatorKey),
    handshakeHash,
    exportSecret: (label: string) => exportSecret(result, label),
  } as unknown as Transport;
}
