import type { DataPlaneCounts } from '../child.ts';
import type { Logger } from '../../protocol/host/index.ts';
import type { AuditLog, Refusals } from './audit/index.ts';
import type { Authority, Sealer } from './authority/index.ts';
import type { Turns } from './turns.ts';
import type { SignedBundle } from './enrolment/bundle.ts';
import type { SignInThrottle } from './identity/index.ts';
import type { ProviderBook } from './identity/oidc/provider-book.ts';
import type { Throttle } from './listener/throttle.ts';
import type { Compliance } from './posture/compliance.ts';
import type { Absences } from './live/absences.ts';
import type { LogFeed } from './live/log-feed.ts';
import type { Peers } from './live/peers.ts';
import type { TakeUps } from './live/take-ups.ts';
import type { TunnelIndex } from './live/tunnel-index.ts';
import type { PolicyEngine } from './policy/index.ts';
import type { Postures } from './posture/index.ts';
import type { ReceivedReceipts } from './proof/cut-receipts.ts';
import type { LiveRisk } from './risk/index.ts';
import type { SignedRelayList } from './relays/relay-list.ts';
import type { RevocationLog } from './revocation/index.ts';
import type { Settings } from './settings.ts';
import type { Store } from './store/index.ts';
import type { ServerClock } from './time/control-clock.ts';
import type { KnownFacts } from './verification/known-facts.ts';
import type { VerificationSchedule } from './verification/schedule.ts';
import type { Verdicts } from './verification/verdicts.ts';

/** What the parts of one control-plane process share. Built once by `startControlPlane`. */
export interface Services {
  readonly store: Store;
  readonly clock: ServerClock;
  /** Learns anew what the clock follows. */
  readonly learnClock: () => Promise<void>;
  readonly audit: AuditLog;
  /** For refusals of whoever may cause as many as he likes. */
  readonly refusals: Refusals;
  readonly authority: Authority;
  /** For what is secret in the store. */
  readonly sealer: Sealer;
  /** Replaced as a whole when it is signed anew. */
  bundle: SignedBundle;
  /** Replaced as a whole when relays change. */
  relayList: SignedRelayList;
  /** Called when `relayList` was replaced. */
  onRelaysChanged: () => void;
  /** Called when another bundle counts. */
  onBundleChanged: () => void;
  /** Called, maybe often, when it is found that this control plane was removed. */
  onRemoved: () => void;
  /** Called, maybe often, when it is found that the store was restored while this process runs. */
  onWentBack: () => void;
  /** The active policy; replaced as a whole inside the transaction that makes another one active. */
  policy: PolicyEngine;
  readonly revocations: RevocationLog;
  readonly signInThrottle: SignInThrottle;
  /** Where else users sign in. */
  readonly providers: ProviderBook;
  /** By device. */
  readonly grantThrottle: Throttle;
  /** Other paths for tunnels that are there; by device. */
  readonly resumeThrottle: Throttle;
  /** One-time passwords typed to set up or remove them, by user. */
  readonly otpThrottle: Throttle;
  /** What costs the most to answer, `apps` and `why`; by device. */
  readonly questionThrottle: Throttle;
  /** Everything that a device may ask; by device. */
  readonly requestThrottle: Throttle;
  /** Reports of connectors on tunnels that are over here, each of which is written down; by connector. */
  readonly reportThrottle: Throttle;
  /** By address, IPv6 by its /64. */
  readonly enrolmentThrottle: Throttle;
  /** Pages asked for; by address, IPv6 by its /64. */
  readonly pageThrottle: Throttle;
  /** Tunnels that are taken up again. */
  readonly takeUps: TakeUps;
  /** Of devices that are being greeted, from their upgrade to the welcome. */
  readonly greetings: Turns;
  readonly settings: Settings;
  /** This control plane among those that share the store. */
  readonly self: { readonly id: string };
  readonly tunnels: TunnelIndex;
  /** Of the data plane beside this control plane, as it last told them; null while there is none. */
  dataPlaneCounts: DataPlaneCounts | null;
  readonly peers: Peers;
  readonly absences: Absences;
  /** How unusual users behave. */
  readonly risk: LiveRisk;
  /** What enforcers sign about the tunnels that they cut. */
  readonly receipts: ReceivedReceipts;
  /** What devices say of themselves. */
  readonly postures: Postures;
  /** Whether what they say meets policy. */
  readonly compliance: Compliance;
  readonly feed: LogFeed;
  readonly schedule: VerificationSchedule;
  /** What verification need not read, or ask policy for, again. */
  readonly knownFacts: KnownFacts;
  readonly verdicts: Verdicts;
  readonly sequence: SequenceSource;
  readonly logger: Logger;
  /** Notes outside of the store how far it has come. */
  readonly keepMarks: () => Promise<void>;
}

/** Hands out the order of renewals: [fencing number of this process, counter]. */
export class SequenceSource {
  #fencing: number;
  #counter = 0;

  constructor(fencing: number) {
    this.#fencing = fencing;
  }

  get fencing(): number {
    return this.#fencing;
  }

  /** What is handed out from here on counts above all under lower numbers: this process took something over. */
  raise(fencing: number): void {
    if (fencing <= this.#fencing) return;
    this.#fencing = fencing;
    this.#counter = 0;
  }

  /** Taken before the inputs of a decision are read, so that a slow one cannot outbid a newer one. */
  next(): [number, number] {
    this.#counter += 1;
    return [this.#fencing, this.#counter];
  }
}
