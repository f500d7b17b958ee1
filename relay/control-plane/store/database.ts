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
import type { Flag } from './flag.ts';
import type {
  ProvidersTable,
  SignInsTable,
  ProviderGrantsTable,
  PasskeysTable,
  RecoveryCodesTable,
  BrowserSessionsTable,
  ServiceCredentialsTable,
  ScimTokensTable,
} from './identity-tables.ts';
import type {
  SignalStreamsTable,
  SignalTokensTable,
  SignalMarksTable,
  SignalOutboxTable,
} from './signal-tables.ts';

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

export type { Flag } from './flag.ts';

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

/** What is other each time that something changes which decisions about a subject rest on; written by triggers. */
export interface FactStampsTable {
  subject: string; // an id, or `*` for everybody
  stamp: string;
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
