/** The host door of `protocol/`: what the three programs share about the machine they run on. */
export { type BridgeOutcome, bridgeStream } from './bridge.ts';
export { RecordPump, type RecordPumpOptions } from './record-pump.ts';
