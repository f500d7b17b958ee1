/**
 * Looks at a TLS ClientHello without ending TLS (RFC 8446 §4.1.2, §5.1). Pure; reads only what decides where a
 * connection goes and trusts nothing of it: whoever ends TLS checks the whole again.
 *
 *   record      type(1)=22 version(2)=03xx length(2) fragment…      a message may span several records
 *   handshake   type(1)=1 length(3) body
 *   body        version(2) random(32) session(1+n) suites(2+n) compression(1+n) extensions(2+n)
 *   extension   type(2) length(2) data                              16 = ALPN: list(2) of name(1+n)
 */
export type HelloView =
  | { readonly state: 'incomplete' }
  | { readonly state: 'refused' } // not a ClientHello
  | { readonly state: 'complete'; readonly protocols: readonly string[] };

const incomplete: HelloView = { state: 'incomplete' };
const refused: HelloView = { state: 'refused' };

const recordHeaderBytes = 5;
const maxFragmentBytes = 16_384;
/** Each byte that comes has all records before it read again; no real client cuts a ClientHello into more. */
const maxRecords = 64;
const handshakeRecord = 22;
const clientHello = 1;
const alpnExtension = 16;

/** What the first bytes of a connection say. The caller caps how many bytes it collects before it gives up. */
export function readClientHello(bytes: Uint8Array): HelloView {
  const fragments: Uint8Array[] = [];
  let gathered = 0;
  let needed = 4;
  let at = 0;
  while (gathered < needed) {
    if (bytes[at] === undefined) return incomplete;
    if (bytes[at] !== handshakeRecord) return refused;
    if (bytes[at + 1] !== undefined && bytes[at + 1] !== 3) return refused;
    if (at + recordHeaderBytes > bytes.length) return incomplete;
    if (fragments.length >= maxRecords) return refused;
    const length = readUint16(bytes, at + 3);
    if (length === 0 || length > maxFragmentBytes) return refused;
    const fragment = bytes.subarray(at + recordHeaderBytes, at + recordHeaderBytes + length);
    fragments.push(fragment);
    gathered += fragment.length;
    const first = fragments[0]?.[0];
    if (first !== undefined && first !== clientHello) return refused;
    if (needed === 4 && gathered >= 4) needed = 4 + messageLength(fragments);
    if (fragment.length < length && gathered < needed) return incomplete;
    at += recordHeaderBytes + length;
  }
  const only = fragments.length === 1 ? fragments[0] : undefined;
  const message = only ?? Buffer.concat(fragments);
  return readBody(message.subarray(4, needed));
}

function messageLength(fragments: readonly Uint8Array[]): number {
  const head = Buffer.concat(fragments.map((fragment) => fragment.subarray(0, 4)));
  return ((head[1] ?? 0) << 16) | ((head[2] ?? 0) << 8) | (head[3] ?? 0);
}

function readBody(body: Uint8Array): HelloView {
  const reader = new Reader(body);
  reader.skip(34);
  reader.vector(1);
  reader.vector(2);
  reader.vector(1);
  const protocols: string[] = [];
  if (reader.isSound && reader.left > 0) {
    const extensions = new Reader(reader.vector(2));
    if (reader.left > 0) return refused;
    while (extensions.isSound && extensions.left > 0) {
      const type = extensions.uint16();
      const data = new Reader(extensions.vector(2));
      if (type !== alpnExtension) continue;
      const names = new Reader(data.vector(2));
      while (names.isSound && names.left > 0) {
        protocols.push(Buffer.from(names.vector(1)).toString('latin1'));
      }
      if (!data.isSound || !names.isSound || data.left > 0) return refused;
    }
    if (!extensions.isSound) return refused;
  }
  return reader.isSound ? { state: 'complete', protocols } : refused;
}

/** Reads forward within bounds; past the end it turns unsound and yields nothing more. */
class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;
  isSound = true;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  skip(count: number): Uint8Array {
    if (!this.isSound || this.left < count) {
      this.isSound = false;
      return new Uint8Array(0);
    }
    this.#at += count;
    return this.#bytes.subarray(this.#at - count, this.#at);
  }

  uint16(): number {
    return readUint16(this.skip(2), 0);
  }

  /** A vector behind a length of `width` bytes. */
  vector(width: 1 | 2): Uint8Array {
    const head = this.skip(width);
    return this.skip(width === 1 ? (head[0] ?? 0) : readUint16(head, 0));
  }
}

function readUint16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
