import type { Generated } from 'kysely';
import type { DeviceId, ErrorCode, SessionId, UserId } from '../../../protocol/index.ts';
import type { Flag } from './flag.ts';

/** Where else users sign in. */
export interface ProvidersTable {
  name: string;
  settingsJson: string;
  sealedSecret: string | null;
  createdAtMs: number;
}

/** Sign-ins under way, each with a browser or at a provider's own page. */
export interface SignInsTable {
  id: string; // 128 random bits in base64url; not a secret
  purpose: 'session' | 'enrolment' | 'account';
  deviceId: DeviceId | null; // null for a machine that is not enrolled yet
  provider: string | null; // null: the person chooses on the page
  challenge: string; // SHA-256 of what only the command that asked knows, base64url
  loopbackPort: number | null; // where that command listens; null where there is no browser beside it
  loopbackState: string | null; // what that command knows the browser's visit by
  passkeyChallenge: string | null; // what a passkey is asked to sign; serves once
  isStepUp: Flag; // what an earlier sign-in left at a provider does not count
  state: 'begun' | 'proved' | 'used' | 'refused';
  sealedState: string | null; // of the exchange with a provider
  sealedProof: string | null; // who it turned out to be
  ticketHash: string | null; // SHA-256 of what the browser brings to the command, hex
  errorCode: ErrorCode | null;
  errorReason: string | null;
  address: string;
  createdAtMs: number;
  expiresAtMs: number;
}

/** What a provider gave for a session, to be asked again with. */
export interface ProviderGrantsTable {
  sessionId: SessionId;
  userId: UserId;
  provider: string;
  subject: string;
  sid: string | null; // the provider's own session
  sealedTokens: string;
  nextCheckAtMs: number;
  lastOkAtMs: number;
  lastError: string | null;
  unreachableSinceMs: number | null;
  claimedUntilMs: Generated<number>; // a control plane is at it until then
}

export interface PasskeysTable {
  id: string; // the credential's, base64url
  userId: UserId;
  name: string;
  publicKey: string; // COSE, base64url
  counter: number;
  transportsJson: string;
  backedUp: Flag;
  createdAtMs: number;
  lastUsedAtMs: number | null;
}

/** Each serves once, in place of a one-time password. */
export interface RecoveryCodesTable {
  userId: UserId;
  hash: string; // SHA-256, hex: a code has enough bits of its own
  usedAtMs: number | null;
  createdAtMs: number;
}

/** Persons signed in on the pages, for a few minutes. */
export interface BrowserSessionsTable {
  tokenHash: string; // SHA-256, hex
  userId: UserId;
  provider: string;
  methodsJson: string;
  address: string;
  challenge: string | null; // what a new passkey is asked to sign; serves once
  createdAtMs: number;
  expiresAtMs: number;
}

/** How a service proves itself: a key of its own, or tokens of an issuer that meet conditions. */
export interface ServiceCredentialsTable {
  id: string;
  userId: UserId;
  kind: 'key' | 'token';
  publicKey: string | null; // Ed25519, base64url
  settingsJson: string; // of tokens: { issuer, audience, claims, … }
  createdAtMs: number;
  lastUsedAtMs: number | null;
}

/** Who may keep users and groups in step. */
export interface ScimTokensTable {
  id: string;
  name: string; // unique
  secretHash: string; // SHA-256, hex; unique
  provider: string | null; // where the users that it adds sign in; null: here
  createdAtMs: number;
  lastUsedAtMs: number | null;
}
