import type { Generated, Selectable } from 'kysely';
import type {
  AppId,
  ConnectorId,
  DecisionId,
  DeviceId,
  ErrorCode,
  GroupId,
  InstanceId,
  InviteId,
  RelayId,
  SessionId,
  SiteId,
  TunnelId,
  UserId,
} from '../../../protocol/index.ts';

/**
 * The tables, in camelCase; the store maps them to snake_case. Truth values are 0 and 1, instants are
 * milliseconds of control time, members ending in `Json` are JSON text: what every engine stores alike.
 */
export interface Database {
  users: UsersTable;
  groups: GroupsTable;
  memberships: MembershipsTable;
  sites: SitesTable;
  apps: AppsTable;
  connectors: ConnectorsTable;
  devices: DevicesTable;
  relays: RelaysTable;
  invites: InvitesTable;
  sessions: SessionsTable;
  totpSecrets: TotpSecretsTable;
  policies: PoliciesTable;
  decisions: DecisionsTable;
  tunnels: TunnelsTable;
  postures: PosturesTable;
  riskProfiles: RiskProfilesTable;
  controlPlanes: ControlPlanesTable;
  connectorLinks: ConnectorLinksTable;
  revocations: RevocationsTable;
  audit: AuditTable;
  checkpoints: CheckpointsTable;
  meta: MetaTable;
  signalStreams: SignalStreamsTable;
  signalTokens: SignalTokensTable;
  signalMarks: SignalMarksTable;
  signalOutbox: SignalOutboxTable;
  factStamps: FactStampsTable;
  providedMemberships: ProvidedMembershipsTable;
  providers: ProvidersTable;
  signIns: SignInsTable;
  providerGrants: ProviderGrantsTable;
  passkeys: PasskeysTable;
  recoveryCodes: RecoveryCodesTable;
  browserSessions: BrowserSessionsTable;
  serviceCredentials: ServiceCredentialsTable;
  scimTokens: ScimTokensTable;
}

export type Flag = 0 | 1;

export type Role = 'admin' | 'helpdesk' | 'auditor';

export interface UsersTable {
  id: UserId;
  name: string; // unique
  role: Role | null;
  disabled: Flag;
  passwordHash: string | null;
  expiresAtMs: number | null;
  createdAtMs: number;
  kind: Generated<'person' | 'service'>;
  provider: string | null; // whose user it is; null for a local one
  subject: string | null; // what the provider calls it; unique with the provider
  externalId: string | null; // what whoever provisions users calls it
  displayName: string | null;
  provisionedBy: string | null; // `scim` or `scim PROVIDER`: who adds, changes and removes it
  disabledByJson: Generated<string>; // who wants it disabled: `admin`, `signals`, `scim`
}

export interface GroupsTable {
  id: GroupId;
  name: string; // unique
  externalId: string | null;
  provisionedBy: string | null; // as a user's
  displayName: string | null; // as whoever provisions it writes it
  createdAtMs: number;
}

export interface MembershipsTable {
  userId: UserId;
  groupId: GroupId;
  untilMs: number | null;
  createdAtMs: number;
}

/** Places in groups that others keep in step; a user is in a group by any of them, or by an administrator's word. */
export interface ProvidedMembershipsTable {
  userId: UserId;
  groupId: GroupId;
  source: string; // `provider NAME`, `scim` or `scim PROVIDER`
  createdAtMs: number;
}

export interface SitesTable {
  id: SiteId;
  name: string; // unique
  createdAtMs: number;
}

export type AppKind = 'tcp' | 'udp' | 'http' | 'ssh' | 'rdp' | 'postgres';

export interface AppsTable {
  id: AppId;
  name: string; // unique
  siteId: SiteId;
  kind: AppKind;
  portHint: number | null;
  labelsJson: string; // { [key]: value }
  createdAtMs: number;
}

/** What devices, connectors and relays share: keys in base64url, the newest certificate. */
export interface IdentityColumns {
  signingKey: string; // Ed25519; unique
  certificateSerial: string | null;
  certificateNotAfterMs: number | null;
}

export interface ConnectorsTable extends IdentityColumns {
  id: ConnectorId;
  name: string;
  siteId: SiteId;
  noiseKey: string; // X25519; unique
  instance: InstanceId | null; // the process seen last
  replacedJson: string; // those before it, which stay out
  state: 'enrolled' | 'disabled' | 'removed';
  createdAtMs: number;
  lastSeenAtMs: number | null;
}

export interface DevicesTable extends IdentityColumns {
  id: DeviceId;
  userId: UserId;
  hostname: string;
  platform: string;
  noiseKey: string; // X25519; unique
  state: 'pending' | 'enrolled' | 'disabled' | 'revoked';
  createdAtMs: number;
  lastSeenAtMs: number | null;
  restrictedJson: string; // names of the streams that say it is not compliant
  unhealthy: Flag; // its posture keeps its user from an app, as others were told
}

export interface RelaysTable {
  id: RelayId;
  name: string;
  url: string;
  state: 'enrolled' | 'disabled' | 'removed';
  certificateSerial: string | null;
  certificateNotAfterMs: number | null;
  createdAtMs: number;
  lastSeenAtMs: number | null;
  isControl: Flag; // it may have a control plane
  isDraining: Flag; // takes no new tunnels
}

export interface InvitesTable {
  id: InviteId;
  kind: 'user' | 'connector' | 'relay';
  subject: string; // user id, connector name or relay name
  siteId: SiteId | null; // of a connector
  secretHash: string; // SHA-256 of the secret, hex; unique
  usesLeft: number;
  expiresAtMs: number;
  revoked: Flag;
  detailsJson: string;
  createdAtMs: number;
}

export interface SessionsTable {
  id: SessionId;
  userId: UserId;
  deviceId: DeviceId;
  provider: string; // `local` for passwords
  methodsJson: string; // ["password","totp"]
  authenticatedAtMs: number;
  createdAtMs: number;
  lastSeenAtMs: number;
  idleMs: number;
  absoluteEndAtMs: number;
  endedAtMs: number | null;
  endReason: string | null;
  address: Generated<string>; // where the sign-in came from
  acr: Generated<string>; // the provider's word on how it was done; empty for none
}

/** `confirmed` turns 1 once the user has proved that the secret is stored; until then it does not count. */
export interface TotpSecretsTable {
  userId: UserId;
  secret: string; // base 32
  confirmed: Flag;
  lastUsedStep: number; // a step serves once
  createdAtMs: number;
}

export interface PoliciesTable {
  version: number;
  textsJson: string; // { [file name]: text }
  digest: string;
  actor: string;
  activatedAtMs: number;
}

export interface DecisionsTable {
  id: DecisionId;
  userId: UserId;
  deviceId: DeviceId;
  sessionId: SessionId | null;
  appId: AppId | null; // null for an app nobody knows
  appName: string;
  tunnelId: TunnelId | null;
  verdict: 'allow' | 'deny';
  reasonsJson: string; // policy ids
  errorsJson: string;
  inputsJson: string;
  inputDigest: string;
  policyVersion: number;
  decidedAtMs: number;
  confirmations: number; // how often the unchanged inputs were confirmed
  lastConfirmedAtMs: number;
}

export interface TunnelsTable {
  id: TunnelId;
  userId: UserId;
  sessionId: SessionId;
  deviceId: DeviceId;
  appId: AppId;
  connectorId: ConnectorId;
  instance: InstanceId;
  relayId: RelayId | null;
  decisionId: DecisionId;
  version: number; // of the wire, signed into its grants
  generation: number; // highest that was granted
  fencing: number; // of the owner, when it took the tunnel
  owner: string | null; // the control plane that verifies it; null for none
  state: 'granted' | 'open' | 'detached' | 'closed';
  holdMs: number; // how long it is kept while detached
  detachedAtMs: number | null;
  suspendedFor: string | null; // the reason why policy holds it back
  suspensionFix: string | null;
  grantExpiresAtMs: number;
  untilMs: number;
  openedAtMs: number | null;
  closedAtMs: number | null;
  closeReason: string | null;
  closeCode: ErrorCode | null;
  bytesUp: number;
  bytesDown: number;
  createdAtMs: number;
  relaysJson: string; // those that its newest grant names
}

/** What is usual for each user. */
export interface RiskProfilesTable {
  userId: UserId;
  profileJson: string;
  updatedAtMs: number;
}

/** What each device said of itself last; that it was said again is written down now and then. */
export interface PosturesTable {
  deviceId: DeviceId;
  factsJson: string;
  atMs: number; // when it was collected
}

/** Control planes that run, or ran. */
export interface ControlPlanesTable {
  id: string; // `cp` for the first, else its relay's
  fencing: number; // of its newest process
  lastSeenAtMs: number; // one that is not seen for a while is dead; 0 for one that has stopped
}

/** Which control plane has a channel with which connector. */
export interface ConnectorLinksTable {
  controlPlane: string;
  connectorId: ConnectorId;
  instance: InstanceId;
}

export interface RevocationsTable {
  incarnation: number;
  position: number;
  action: 'revoke' | 'suspend';
  subjectKind: 'user' | 'session' | 'device' | 'app' | 'connector' | 'tunnel';
  subjectId: string;
  reason: string;
  atMs: number;
}

export interface AuditTable {
  writer: string;
  position: number;
  atMs: number;
  actor: string;
  action: string;
  subject: string;
  outcome: 'ok' | 'refused' | 'failed';
  ref: string | null;
  userName: string | null;
  appName: string | null;
  detailsJson: string;
  previous: string;
  hash: string;
}

export interface CheckpointsTable {
  writer: string;
  position: number;
  hash: string;
  atMs: number;
  statement: string;
}

export interface MetaTable {
  key: string;
  value: string;
}

/** What is known of a stream of tokens from others. */
export interface SignalStreamsTable {
  name: string;
  lastEventAtMs: number | null;
  lastVerifiedAtMs: number | null; // by an event that says nothing else
  status: string | null; // as its transmitter told last
  lastError: string | null;
  accepted: number;
  refused: number;
  poller: string | null; // the control plane that asks for its tokens
  pollUntilMs: number; // and keeps the others from it until then
}

/** Tokens that came, until they would be refused for their age. */
export interface SignalTokensTable {
  stream: string;
  jti: string;
  digest: string; // SHA-256 of the claims, hex
  expiresAtMs: number;
}

/** What a stream said last of a subject, and whether it still counts. */
export interface SignalMarksTable {
  stream: string;
  kind: 'device' | 'risk'; // not compliant, or a part of the risk
  subjectKind: 'user' | 'session' | 'device';
  subjectId: string;
  points: number; // 0 unless risk
  active: Flag;
  happenedAtMs: number; // events from before change nothing
  untilMs: number;
}

/** What others are still to be told; dead is what they would not take. */
export interface SignalOutboxTable {
  id: string;
  target: string; // `set NAME` or `webhook NAME`
  event: string;
  bodyJson: string;
  attempts: number;
  nextAtMs: number;
  claimedUntilMs: number; // a control plane is at it until then
  lastError: string | null;
  dead: Flag;
  createdAtMs: number;
}

/** What is other each time that something changes which decisions about a subject rest on; written by triggers. */
export interface FactStampsTable {
  subject: string; // an id, or `*` for everybody
  stamp: string;
}

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

export type SignIn = Selectable<SignInsTable>;
export type Provider = Selectable<ProvidersTable>;
export type BrowserSession = Selectable<BrowserSessionsTable>;
export type Passkey = Selectable<PasskeysTable>;
export type ServiceCredential = Selectable<ServiceCredentialsTable>;
export type ScimToken = Selectable<ScimTokensTable>;
export type User = Selectable<UsersTable>;
export type Group = Selectable<GroupsTable>;
export type Membership = Selectable<MembershipsTable>;
export type Site = Selectable<SitesTable>;
export type App = Selectable<AppsTable>;
export type Connector = Selectable<ConnectorsTable>;
export type Device = Selectable<DevicesTable>;
export type Relay = Selectable<RelaysTable>;
export type Invite = Selectable<InvitesTable>;
export type Session = Selectable<SessionsTable>;
export type Policy = Selectable<PoliciesTable>;
export type Decision = Selectable<DecisionsTable>;
export type Tunnel = Selectable<TunnelsTable>;
export type Revocation = Selectable<RevocationsTable>;
