/** The `signals` section of `relay.yaml`: who may tell us of events, and whom we tell of ours. Durations in milliseconds. */
export interface SignalSettings {
  readonly receive: readonly ReceiveSettings[];
  readonly transmit: readonly TransmitSettings[];
  readonly webhooks: readonly WebhookSettings[];
}

/** Where a server of others is, and what it takes to speak to it. */
export interface OutsideSettings {
  readonly url: string;
  /** Lets the name resolve to a private or loopback address. */
  readonly allowPrivate: boolean;
  /** PEM file of the authorities that its certificate may come from; null: those that this machine trusts. */
  readonly caFile: string | null;
}

/** One stream of Security Event Tokens that we receive. */
export interface ReceiveSettings {
  readonly name: string;
  readonly issuer: string;
  readonly audience: string;
  /** A file with a JSON Web Key Set, or where the transmitter serves it. */
  readonly keys: { readonly file: string } | OutsideSettings;
  /** The secret that the transmitter sends with what it pushes; null: it may not push. */
  readonly pushTokenFile: string | null;
  readonly poll:
    (OutsideSettings & { readonly tokenFile: string; readonly everyMs: number }) | null;
  readonly subjects: SubjectSettings;
  /** Tokens issued longer ago are refused. */
  readonly maxAgeMs: number;
  /** For so long a risk level counts that the transmitter does not take back. */
  readonly riskMs: number;
}

/** How subjects of others become users, devices and sessions of ours. */
export interface SubjectSettings {
  /** Whether a user is called as the whole address, or as what stands before the @; null: addresses name nobody. */
  readonly email: 'user_name' | 'local_part' | null;
  /** Domains whose addresses count; empty: every one, which `local_part` does not allow. */
  readonly domains: readonly string[];
  /** A file that names users, devices and sessions by the ids of others. */
  readonly mapFile: string | null;
}

/** A receiver of Security Event Tokens of ours. */
export interface TransmitSettings extends OutsideSettings {
  readonly name: string;
  readonly audience: string;
  readonly tokenFile: string | null;
  /** Users are named NAME@domain; null: by our issuer and their name, unless that is an address already. */
  readonly emailDomain: string | null;
}

export interface WebhookSettings extends OutsideSettings {
  readonly name: string;
  readonly secretFile: string;
}

export const noSignals: SignalSettings = { receive: [], transmit: [], webhooks: [] };
