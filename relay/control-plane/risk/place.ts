import { unwatchFile, watchFile } from 'node:fs';
import { BlockList, isIP } from 'node:net';
import { open, type CityResponse, type Reader, type Response } from 'maxmind';
import { ZtnaError } from '../../../protocol/index.ts';
import { plainAddress } from '../../data-plane/address.ts';
import type { Logger } from '../../../protocol/host/index.ts';
import type { Place } from './event.ts';

/** MaxMind files that an administrator supplies; each may be missing. */
export interface PlaceFiles {
  /** Of the shape of GeoLite2-City, or GeoLite2-Country, which knows no coordinates. */
  readonly city: string | null;
  /** Of the shape of GeoLite2-ASN. */
  readonly asn: string | null;
}

/** Says where addresses lie. */
export interface Places {
  /** Null for an address that is private, unknown or none. */
  find(address: string): Place | null;
  /** Reads files no more. */
  stop?(): void;
}

/** Knows no place, as long as nobody supplied a file. */
export const noPlaces: Places = { find: () => null };

/** Which file holds what, as the end of its type says: `GeoLite2-City`, `DBIP-Country-Lite`. */
const kinds = { city: /city|country|enterprise/i, asn: /asn|isp|enterprise/i } as const;
type Kind = keyof typeof kinds;

const watchEveryMs = 5_000;
/** Decoded records kept per file. */
const cachedRecords = 2_000;

/** Private, local and reserved networks: no file may say where they lie. */
const privateNetworks = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['224.0.0.0', 3],
] as const) {
  privateNetworks.addSubnet(network, prefix, 'ipv4');
}
for (const [network, prefix] of [
  ['::', 127],
  ['fc00::', 7],
  ['fe80::', 10],
  ['ff00::', 8],
] as const) {
  privateNetworks.addSubnet(network, prefix, 'ipv6');
}

/** Looks addresses up in MaxMind files, which are read again when they are replaced. */
export class PlaceFinder implements Places {
  readonly #paths: readonly (readonly [Kind, string])[];
  readonly #readers: Map<Kind, Reader<Response>>;
  readonly #logger: Logger;
  #reloading: Promise<void> = Promise.resolve();
  readonly #onFileChange = () => {
    void this.reload();
  };

  /** Reads the files. Throws ERR_CONFIG_INVALID for one that is not there or not what it should be. */
  static async open(files: PlaceFiles, logger: Logger): Promise<PlaceFinder> {
    const paths = (['city', 'asn'] as const).flatMap((kind) => {
      const path = files[kind];
      return path === null ? [] : [[kind, path] as const];
    });
    const readers = new Map<Kind, Reader<Response>>();
    for (const [kind, path] of paths) readers.set(kind, await readFile(kind, path));
    return new PlaceFinder(paths, readers, logger);
  }

  private constructor(
    paths: readonly (readonly [Kind, string])[],
    readers: Map<Kind, Reader<Response>>,
    logger: Logger,
  ) {
    this.#paths = paths;
    this.#readers = readers;
    this.#logger = logger;
    for (const [, path] of paths) {
      // Polling also sees a file that is swapped by a rename or a link, as updaters do.
      watchFile(path, { interval: watchEveryMs, persistent: false }, this.#onFileChange);
    }
  }

  find(address: string): Place | null {
    const plain = plainAddress(address);
    const family = isIP(plain);
    if (family === 0) return null;
    if (privateNetworks.check(plain, family === 4 ? 'ipv4' : 'ipv6')) return null;
    const place = {
      ...cityPlace(this.#get('city', plain)),
      network: networkOf(this.#get('asn', plain)),
    };
    return place.country === null && place.network === null && place.latitude === null
      ? null
      : place;
  }

  /** Reads the files again. One that cannot be read is logged, and what was read from it before stays. */
  reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reloadNow());
    return this.#reloading;
  }

  stop(): void {
    for (const [, path] of this.#paths) unwatchFile(path, this.#onFileChange);
  }

  async #reloadNow(): Promise<void> {
    for (const [kind, path] of this.#paths) {
      try {
        this.#readers.set(kind, await readFile(kind, path));
        this.#logger.info('places_reloaded', { file: path });
      } catch (error) {
        const { message } = error as Error;
        this.#logger.warn('places_reload_refused', { file: path, message });
      }
    }
  }

  /** A damaged file may hold anything: what cannot be read is unknown. */
  #get(kind: Kind, address: string): unknown {
    try {
      return this.#readers.get(kind)?.get(address) ?? null;
    } catch {
      return null;
    }
  }
}

function cityPlace(record: unknown): Omit<Place, 'network'> {
  const { country, registered_country, location } = (record ?? {}) as Partial<CityResponse>;
  const code: unknown = country?.iso_code ?? registered_country?.iso_code;
  const { latitude, longitude } = location ?? {};
  const isLocated = isDegrees(latitude, 90) && isDegrees(longitude, 180);
  return {
    country: typeof code === 'string' && /^[A-Z]{2}$/.test(code) ? code : null,
    latitude: isLocated ? latitude : null,
    longitude: isLocated ? longitude : null,
  };
}

function networkOf(record: unknown): number | null {
  const number = (record as { autonomous_system_number?: unknown } | null)
    ?.autonomous_system_number;
  return Number.isSafeInteger(number) && (number as number) >= 0 ? (number as number) : null;
}

function isDegrees(value: number | undefined, most: number): value is number {
  return typeof value === 'number' && Math.abs(value) <= most;
}

async function readFile(kind: Kind, path: string): Promise<Reader<Response>> {
  let reader: Reader<Response>;
  try {
    reader = await open(path, { cache: { max: cachedRecords } });
    // What is cut off in the middle shows itself only when it is looked into.
    reader.get('1.1.1.1');
  } catch (cause) {
    throw invalid(kind, path, 'cannot be read as a MaxMind file', cause);
  }
  const type: unknown = reader.metadata.databaseType;
  if (typeof type !== 'string' || !kinds[kind].test(type)) {
    throw invalid(kind, path, `is of the type ${JSON.stringify(type).slice(0, 64)}`);
  }
  return reader;
}

function invalid(kind: Kind, path: string, what: string, cause?: unknown): ZtnaError {
  const wanted = kind === 'city' ? 'GeoLite2-City or GeoLite2-Country' : 'GeoLite2-ASN';
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `risk.geo.${kind}: ${path} ${what}`,
    hint: `give it a file of the shape of ${wanted} (.mmdb, unpacked)`,
    ...(cause === undefined ? {} : { cause }),
  });
}
