import { generateKeyPairSync } from 'node:crypto';
import {
  bundleSchema,
  ConnectorHandshake,
  ClientHandshake,
  grantSchema,
  leaseBatchSchema,
  logBatchSchema,
  newId,
  newNoiseKeyPair,
  rawPublicKey,
  rootIdOf,
  rosterEntrySchema,
  signingKey,
  signStatement,
  verifyBundle,
  verifyPermit,
  type AppId,
  type Bundle,
  type Grant,
  type LeaseBatch,
  type LogBatch,
  type ProvedClient,
  type RelayId,
  type SigningKey,
  type Transport,
} from '../../protocol/index.ts';

/** Control time at which everything of a test happens, unless it says otherwise. */
export const startMs = 1_800_000_000_000;

export function newSigningKey(): SigningKey {
  return signingKey(generateKeyPairSync('ed25519').privateKey);
}

function raw64(key: Parameters<typeof rawPublicKey>[0]): string {
  return rawPublicKey(key).toString('base64url');
}

/** The keys of a control plane, one connector and one device, and what they sign. */
export class Parties {
  readonly root = newSigningKey();
  readonly grantKey = newSigningKey();
  readonly rosterKey = newSigningKey();
  readonly connectorKeys = newNoiseKeyPair();
  readonly deviceKeys = newNoiseKeyPair();
  readonly connector = newId('connector');
  readonly instance = newId('instance');
  readonly device = newId('device');
  readonly relay: RelayId = newId('relay');
  readonly app: AppId = newId('app');
  readonly rootId = rootIdOf(rawPublicKey(this.root.privateKey));
  readonly bundleStatement: string;
  readonly bundle: Bundle;

  constructor(authorities: string[] = ['not a certificate']) {
    this.bundleStatement = signStatement(
      'bundle',
      bundleSchema,
      {
        version: 1,
        root: raw64(this.root.privateKey),
        nextRoot: null,
        grantKeys: [raw64(this.grantKey.privateKey)],
        rosterKeys: [raw64(this.rosterKey.privateKey)],
        authorities,
        notAfterMs: startMs * 2,
      },
      this.root,
    );
    const pinned = { rootId: this.rootId, minVersion: 1 };
    this.bundle = verifyBundle(this.bundleStatement, pinned, startMs);
  }

  grant(change: Partial<Grant> = {}): Grant {
    return {
      id: newId('grant'),
      version: 1,
      user: newId('user'),
      session: newId('session'),
      device: this.device,
      deviceKey: raw64(this.deviceKeys.publicKey),
      app: this.app,
      connector: this.connector,
      instance: this.instance,
      tunnel: newId('tunnel'),
      generation: 1,
      decision: newId('decision'),
      policy: 1,
      incarnation: 1,
      position: 0,
      issuedAtMs: startMs,
      expiresAtMs: startMs + 60_000,
      intervalMs: 20_000,
      holdMs: 300_000,
      sequence: [1, 1],
      untilMs: startMs + 60_000,
      relays: [this.relay],
      ...change,
    };
  }

  signGrant(grant: Grant, key: SigningKey = this.grantKey): string {
    return signStatement('grant', grantSchema, grant, key);
  }

  roster(): string {
    return signStatement(
      'roster',
      rosterEntrySchema,
      {
        connector: this.connector,
        site: newId('site'),
        noiseKey: raw64(this.connectorKeys.publicKey),
        signingKey: raw64(newSigningKey().privateKey),
        apps: [this.app],
      },
      this.rosterKey,
    );
  }

  leases(entries: LeaseBatch['entries'], change: Partial<LeaseBatch> = {}): string {
    const batch = { connector: this.connector, entries, ...change };
    return signStatement('lease', leaseBatchSchema, batch, this.grantKey);
  }

  log(batch: Partial<LogBatch>): string {
    const whole = {
      audience: this.connector,
      incarnation: 1,
      entries: [],
      completeTo: 0,
      ...batch,
    };
    return signStatement('log', logBatchSchema, whole, this.grantKey);
  }

  /** The client's side of a handshake under `statement`, from the device's own view. */
  clientHandshake(statement: string, nowMs: number = startMs): ClientHandshake {
    const permit = verifyPermit(
      { grant: statement, roster: this.roster() },
      {
        bundle: this.bundle,
        device: this.device,
        deviceKey: rawPublicKey(this.deviceKeys.publicKey),
        nowMs,
      },
    );
    const { rootId, relay, deviceKeys } = this;
    return new ClientHandshake({ permit, rootId, relay, deviceKeys });
  }

  /** A client that has just proved its key to the connector. */
  provedClient(
    statement: string,
    nowMs: number = startMs,
  ): { client: ProvedClient; transport: Transport } {
    const client = this.clientHandshake(statement, nowMs);
    const connector = new ConnectorHandshake({
      grantStatement: statement,
      bundle: this.bundle,
      relay: this.relay,
      connectorKeys: this.connectorKeys,
    });
    const { message3, transport } = client.receiveMessage2(
      connector.receiveMessage1(client.message1()),
    );
    return { client: connector.receiveMessage3(message3), transport };
  }
}
