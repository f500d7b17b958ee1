import {
  ClientHandshake,
  ConnectorHandshake,
  leaseBatchSchema,
  logBatchSchema,
  rawPublicKey,
  signStatement,
  verifyPermit,
  type Grant,
  type LeaseBatch,
  type LogBatch,
  type NoiseKeyPair,
  type ProvedClient,
  type Transport,
  type VerifiedPermit,
} from '../../protocol/index.ts';
import { TestAuthority, testNowMs } from '../support/authority.ts';

/** Control time at which everything of a test happens, unless it says otherwise. */
export const startMs = testNowMs;

/** An authority that also speaks to a connector, and its one device's side of a handshake. */
export class Parties extends TestAuthority {
  signLeases(entries: LeaseBatch['entries'], changes: Partial<LeaseBatch> = {}): string {
    const batch = { connector: this.connector, entries, ...changes };
    return signStatement('lease', leaseBatchSchema, batch, this.grantKey);
  }

  signLog(changes: Partial<LogBatch> = {}): string {
    const batch = { audience: this.connector, incarnation: 1, entries: [], completeTo: 0 };
    return signStatement('log', logBatchSchema, { ...batch, ...changes }, this.grantKey);
  }

  rawDeviceKey(): Buffer {
    return rawPublicKey(this.deviceKeys.publicKey);
  }

  /** What the device verified at `nowMs` before it dialled. */
  permitOf(grantStatement: string, nowMs: number, device = this.device): VerifiedPermit {
    return verifyPermit(
      { grant: grantStatement, roster: this.signRoster() },
      {
        bundle: this.bundle,
        device,
        deviceKey: this.rawDeviceKey(),
        nowMs,
      },
    );
  }

  clientHandshake(grantStatement: string, nowMs: number = startMs): ClientHandshake {
    return new ClientHandshake({
      permit: this.permitOf(grantStatement, nowMs),
      rootId: this.bundle.rootId,
      relay: this.relay,
      deviceKeys: this.deviceKeys,
    });
  }

  /** As `clientHandshake`, of a client that does not check what it was granted. */
  uncheckedHandshake(
    grantStatement: string,
    deviceKeys: NoiseKeyPair = this.deviceKeys,
  ): ClientHandshake {
    const [, , payload = ''] = grantStatement.split('.');
    const claimed = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Grant;
    const permit = this.permit();
    return new ClientHandshake({
      permit: {
        grant: { ...claimed, statement: grantStatement },
        connectorKey: permit.connectorKey,
        rosterStatement: permit.rosterStatement,
      } as unknown as VerifiedPermit,
      rootId: this.bundle.rootId,
      relay: this.relay,
      deviceKeys,
    });
  }

  /** A client that has just proved its key to the connector. */
  provedClient(grantStatement: string): { client: ProvedClient; transport: Transport } {
    const client = this.clientHandshake(grantStatement);
    const connector = new ConnectorHandshake({
      grantStatement,
      bundle: this.bundle,
      relay: this.relay,
      connectorKeys: this.connectorKeys,
    });
    const message2 = connector.receiveMessage1(client.message1());
    const { message3, transport } = client.receiveMessage2(message2);
    return { client: connector.receiveMessage3(message3), transport };
  }
}
