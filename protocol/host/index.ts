/** The host door of `protocol/`: what the three programs share about the machine they run on. */
export { type BridgeOutcome, bridgeStream } from './bridge.ts';
export { countGarbage } from './buffer-garbage.ts';
export { ControlClock, readClocks } from './clock.ts';
export { CutReceipts, type Cut } from './cut-receipts.ts';
export { notAvailableYet, printError, runCommandLine, softwareVersion } from './command-line.ts';
export { compileCacheVariable } from './compile-cache.ts';
export { watchConnection } from './connection-watch.ts';
export {
  type AnswerOf,
  ControlChannel,
  type ControlChannelOptions,
  type RequestOf,
  type WelcomeOf,
} from './control-channel.ts';
export { dialForWebSocket, type DialOptions, dialWebSocket, webSocketOptions } from './dial.ts';
export { enrol, fetchBundle, machineFacts, renewCertificate } from './enrolment.ts';
export { requestEnrolment } from './enrolment-request.ts';
export { environmentNames, warnUnknownEnvironment } from './environment.ts';
export { http } from './http.ts';
export { type Identity, isSealed, loadIdentity, saveIdentity } from './identity.ts';
export { askHidden, parseDurationMs, readSecretArgument } from './input.ts';
export {
  createCertificateRequest,
  createNoiseKey,
  createSigningKey,
  createTlsKey,
  digestText,
} from './keys.ts';
export { KnownRelays, type KnownRelaysOptions } from './known-relays.ts';
export { deadAfterMs, pingEveryMs, startLiveness } from './liveness.ts';
export {
  createLogger,
  type LogFields,
  type Logger,
  type LoggerOptions,
  logLevel,
  type LogLevel,
} from './log.ts';
export { type MachineReading, machineNetwork, NetworkWatch } from './network-watch.ts';
export { nearestWord } from './nearest-word.ts';
export { type EarlyMessages, PathInbox } from './path-inbox.ts';
export { PathKeeper, type PathKeeperOptions, type PathParts } from './path-keeper.ts';
export {
  certificateIdentity,
  certificateLife,
  isIssuedByListed,
  peerIdentity,
  type PeerIdentity,
  type Role,
  roles,
  roleUri,
} from './peer.ts';
export { describeProxy } from './proxy.ts';
export { RecordPump, type RecordPumpOptions } from './record-pump.ts';
export {
  Backoff,
  fullJitterDelayMs,
  redialCapMs,
  redialForever,
  type RedialOptions,
  steadyAfterMs,
  waitToRedial,
} from './redial.ts';
export { resetSocket } from './reset-socket.ts';
export { RevocationFeed } from './revocation-feed.ts';
export { type ShutdownCause, shutdownCause, shutdownSignal } from './shutdown.ts';
export { openStateDir, readSecretFile, systemCode, writeSecretFile } from './state-dir.ts';
export { listenTcp, type TcpListener } from './tcp.ts';
export { conditionLines, type ShownCondition } from './condition-lines.ts';
export { escapeTerminal, printJsonLine, printTable } from './terminal.ts';
export { dialFirst, type DialFirstOptions } from './dial-first.ts';
export {
  abortError,
  dialTls,
  type SecureDial,
  secureServerOptions,
  type SecureServerOptions,
} from './tls.ts';
export { errorHeader, refuseUpgrade } from './upgrade.ts';
