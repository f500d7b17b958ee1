import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import { bundleSchema, rootIdOf, verifyBundle, type Bundle } from '../../protocol/bundle.ts';
import {
  grantSchema,
  rosterEntrySchema,
  verifyPermit,
  type Grant,
  type RosterEntry,
  type VerifiedPermit,
} from '../../protocol/grant.ts';
import { newId } from '../../protocol/id.ts';
import { newNoiseKeyPair } from '../../protocol/noise-xk.ts';
import {
  rawPublicKey,
  signingKey,
  signStatement,
  type SigningKey,
} from '../../protocol/statement.ts';

/** A control time for tests that need one and do not care which. */
export const testNowMs = 1_900_000_000_000;

export function newSigningKey(): SigningKey {
  return signingKey(generateKeyPairSync('ed25519').privateKey);
}

export function rawBase64(key: SigningKey | { publicKey: KeyObject }): string {
  return rawPublicKey('privateKey' in key ? key.privateKey : key.publicKey).toString('base64url');
}

/** A deployment's keys with one device, one connector and one relay, able to sign permits between them. */
export class TestAuthority {
  readonly root = newSigningKey();
  readonly grantKey = newSigningKey();
  readonly rosterKey = newSigningKey();
  readonly device = newId('device');
  readonly deviceKeys = newNoiseKeyPair();
  readonly connector = newId('connector');
  readonly connectorKeys = newNoiseKeyPair();
  readonly instance = newId('instance');
  readonly relay = newId('relay');
  readonly app = newId('app');
  readonly site = newId('site');
  readonly bundleStatement: string;
  readonly bundle: Bundle;

  constructor() {
    this.bundleStatement = this.signBundle();
    this.bundle = verifyBundle(
      this.bundleStatement,
      { rootId: rootIdOf(rawPublicKey(this.root.privateKey)), minVersion: 1 },
      testNowMs,
    );
  }

  signBundle(changes: Record<string, unknown> = {}, key: SigningKey = this.root): string {
    const bundle = {
      version: 1,
      root: rawBase64(this.root),
      nextRoot: null,
      grantKeys: [rawBase64(this.grantKey)],
      rosterKeys: [rawBase64(this.rosterKey)],
      authorities: ['-----BEGIN CERTIFICATE-----'],
      notAfterMs: testNowMs + 86_400_000,
      ...changes,
    };
    return signStatement('bundle', bundleSchema, bundle, key);
  }

  grant(changes: Partial<Grant> = {}): Grant {
    return {
      id: newId('grant'),
      version: 1,
      user: newId('user'),
      session: newId('session'),
      device: this.device,
      deviceKey: rawBase64(this.deviceKeys),
      app: this.app,
      connector: this.connector,
      instance: this.instance,
      tunnel: newId('tunnel'),
      generation: 1,
      decision: newId('decision'),
      policy: 1,
      incarnation: 1,
      position: 0,
      issuedAtMs: testNowMs,
      expiresAtMs: testNowMs + 60_000,
      intervalMs: 20_000,
      holdMs: 300_000,
      sequence: [1, 1],
      untilMs: testNowMs + 60_000,
      relays: [this.relay],
      ...changes,
    };
  }

  signGrant(changes: Partial<Grant> = {}, key: SigningKey = this.grantKey): string {
    return signStatement('grant', grantSchema, this.grant(changes), key);
  }

  signRoster(changes: Partial<RosterEntry> = {}, key: SigningKey = this.rosterKey): string {
    const entry = {
      connector: this.connector,
      site: this.site,
      noiseKey: rawBase64(this.connectorKeys),
      signingKey: randomBytes(32).toString('base64url'),
      apps: [this.app],
      ...changes,
    };
    return signStatement('roster', rosterEntrySchema, entry, key);
  }

  verifyPermit(permit: { readonly grant: string; readonly roster: string }): VerifiedPermit {
    return verifyPermit(permit, {
      bundle: this.bundle,
      device: this.device,
      deviceKey: rawPublicKey(this.deviceKeys.publicKey),
      nowMs: testNowMs,
    });
  }

  permit(changes: Partial<Grant> = {}): VerifiedPermit {
    return this.verifyPermit({ grant: this.signGrant(changes), roster: this.signRoster() });
  }
}

/** A copy with one byte changed. */
export function flipByte(bytes: Uint8Array, index: number, mask = 0x01): Buffer {
  const copy = Buffer.from(bytes);
  copy[index] = (copy[index] ?? 0) ^ mask;
  return copy;
}
