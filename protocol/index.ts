/** The pure door of `protocol/`: what the three programs share and nothing that touches the machine. */
export { type Bundle, bundleSchema, rootIdOf, verifyBundle } from './bundle.ts';
export { ControlTime, type LocalClocks, maxTimeRoundTripMs, timeSchema } from './control-time.ts';
export {
  type ErrorCode,
  type ErrorDetails,
  errorRow,
  type ErrorRow,
  errorRows,
  type Family,
  fromCloseFrame,
  type Hop,
  isErrorCode,
  type Retry,
  toCloseFrame,
  toZtnaError,
  ZtnaError,
} from './errors.ts';
export {
  type CloseDetails,
  type Frame,
  FrameType,
  maxPayloadBytes,
  maxPlaintextBytes,
  readFrames,
  type ResetCode,
} from './frame.ts';
export {
  type Grant,
  grantDigest,
  grantSchema,
  type GrantVerifier,
  maxGrantAheadMs,
  maxGrantLength,
  maxGrantLifeMs,
  maxRosterLength,
  readGrantClaim,
  type RosterEntry,
  rosterEntrySchema,
  type VerifiedGrant,
  type VerifiedPermit,
  verifyGrantAtConnector,
  verifyGrantAtRelay,
  verifyPermit,
  oldestWireVersion,
  identityVersion,
  suspendableVersion,
  wireVersion,
  wireVersions,
} from './grant.ts';
export {
  ClientHandshake,
  ConnectorHandshake,
  handshakeMessageBytes,
  maxHandshakeMessage3Bytes,
  type ProvedClient,
  type Transport,
} from './handshake.ts';
export {
  type AppId,
  type ConnectorId,
  type DecisionId,
  type DeviceId,
  type GrantId,
  type GroupId,
  type Id,
  type IdKind,
  idSchema,
  type InstanceId,
  type InviteId,
  isId,
  isName,
  namePattern,
  newId,
  type RelayId,
  type SessionId,
  type SiteId,
  type TunnelId,
  type UserId,
} from './id.ts';
export {
  compareSequence,
  Lease,
  type LeaseBatch,
  leaseBatchSchema,
  leaseLengthMs,
  type Sequence,
  sequenceSchema,
} from './lease.ts';
export { decodeMessage, encodeMessage, maxMessageBytes, type MessageSchema } from './message.ts';
export {
  bundle,
  ending,
  errorCode,
  leases,
  log,
  refusal,
  statementText,
  timeAnswer,
  timeRequest,
  versions,
} from './messages/channel.ts';
export {
  fromConnector,
  type FromConnector,
  toConnector,
  type ToConnector,
} from './messages/connector.ts';
export {
  type Assign,
  channelPath,
  aheadProtocol,
  controlProtocol,
  dataProtocol,
  enrolmentProtocol,
  forwardProtocol,
  fromSlot,
  type FromSlot,
  grantHeader,
  instanceHeader,
  slotPath,
  toSlot,
  type ToSlot,
  toTunnelEnd,
  type ToTunnelEnd,
  tunnelPath,
} from './messages/data.ts';
export {
  type AppRow,
  fromDevice,
  type FromDevice,
  maxAvoidedRelays,
  maxExplainedConditions,
  maxExplainedRules,
  type SessionFacts,
  toDevice,
  type ToDevice,
} from './messages/device.ts';
export { serviceProofSchema } from './messages/device-identity.ts';
export {
  bundlePath,
  encodeEnrolmentCode,
  enrolAnswer,
  type EnrolAnswer,
  type EnrolmentCode,
  enrolmentProofSchema,
  enrolPath,
  enrolRefusal,
  enrolRequest,
  type EnrolRequest,
  maxEnrolmentBytes,
  parseEnrolmentCode,
  renewalProofSchema,
  renewAnswer,
  renewPath,
  renewRequest,
} from './messages/enrolment.ts';
export {
  controlPlaneSchema,
  controlPlanesSchema,
  joinAnswer,
  joiningSchema,
  joinPath,
  joinRequest,
  maxControlPlanes,
  type ControlPlaneKeys,
  type ControlPlanes,
  type Joining,
  type JoinRequest,
} from './messages/control-planes.ts';
export {
  builtInChecks,
  checkName,
  checkResults,
  type CheckResult,
  type DevicePosture,
  type ExtraCheck,
  extraCheckSchema,
  maxPostureBytes,
  maxPostureChecks,
  type PostureCheck,
  isDeviceReason,
  postureMeasures,
  type PostureStatement,
  postureFactsSchema,
  postureStatementSchema,
  verifyPosture,
} from './posture.ts';
export { type CutReceipt, cutReceiptSchema, verifyReceipt } from './receipt.ts';
export {
  type ListedRelay,
  maxRelays,
  type RelayList,
  relayListSchema,
  verifyRelayList,
} from './relay-list.ts';
export { fromRelay, type FromRelay, toRelay, type ToRelay } from './messages/relay.ts';
export { type AuthenticatedPeer, newNoiseKeyPair, type NoiseKeyPair } from './noise-xk.ts';
export {
  maxBlocksPerKey,
  maxRecordBytes,
  maxRecordContentBytes,
  RecordOpener,
  RecordSealer,
} from './record.ts';
export {
  type Granted,
  isAbout,
  isEnding,
  type LogBatch,
  logBatchSchema,
  type RevocationEntry,
  revocationEntrySchema,
  type RevocationSubjects,
  type Subject,
  subjectSchema,
} from './revocation.ts';
export {
  ClientResume,
  ConnectorResume,
  type ResumedPath,
  type ResumeSecret,
  resumeSecretOf,
} from './resume.ts';
export {
  ed25519PublicKey,
  keyIdOf,
  rawPublicKey,
  signingKey,
  type SigningKey,
  signStatement,
  type StatementKind,
  verifyingKey,
  type VerifyingKey,
  verifyStatement,
  x25519PublicKey,
} from './statement.ts';
export { type StreamHandlers, type TunnelStream } from './stream.ts';
export { TokenBucket } from './token-bucket.ts';
export { TunnelEndpoint } from './tunnel-endpoint.ts';
export { defaultTunnelLimits, type TunnelLimits } from './tunnel-limits.ts';
export {
  type ClientTunnelHandlers,
  type ConnectorTunnelHandlers,
  type TunnelEndpointOptions,
  type TunnelHandlers,
} from './tunnel-options.ts';
export { ByteBudget, reservedWindowBytes } from './window.ts';
