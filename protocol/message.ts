import * as v from 'valibot';
import { ZtnaError } from './errors.ts';

/** The largest control message, in bytes of UTF-8, before and after authentication. */
export const maxMessageBytes = 65_536;

/** Refuses bytes that are no UTF-8 rather than replacing them, and keeps a byte order mark for JSON to refuse. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A schema of messages: strict objects told apart by `type`, every member required. */
export type MessageSchema = v.GenericSchema<unknown, unknown>;

/**
 * Serialises a message in the one form that `decodeMessage` accepts: members in schema order.
 * Throws ERR_INTERNAL when the value does not fit: that is a mistake of ours.
 */
export function encodeMessage<S extends MessageSchema>(schema: S, value: v.InferInput<S>): string {
  const result = v.safeParse(schema, value);
  if (!result.success) {
    throw new ZtnaError('ERR_INTERNAL', {
      message: `message does not fit its schema: ${v.summarize(result.issues)}`,
    });
  }
  return JSON.stringify(result.output);
}

/**
 * Reads a message from a peer. The cap is checked before the text is parsed; unknown, missing or repeated
 * members, other member orders and other spellings of a value are refused by comparing the text with its own
 * re-serialisation. Throws ERR_MESSAGE_TOO_LARGE or ERR_MESSAGE_MALFORMED.
 */
export function decodeMessage<S extends MessageSchema>(
  schema: S,
  text: string | Uint8Array,
  maxBytes: number = maxMessageBytes,
): v.InferOutput<S> {
  const byteLength = typeof text === 'string' ? Buffer.byteLength(text) : text.length;
  if (byteLength > maxBytes) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  let string: string;
  let json: unknown;
  try {
    string = typeof text === 'string' ? text : utf8.decode(text);
    json = JSON.parse(string);
  } catch (cause) {
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', { cause });
  }
  const result = v.safeParse(schema, json);
  if (!result.success) {
    const first = result.issues[0];
    throw new ZtnaError('ERR_MESSAGE_MALFORMED', {
      message: `a message could not be read: at ${v.getDotPath(first) ?? 'top'}`,
    });
  }
  if (JSON.stringify(result.output) !== string) throw new ZtnaError('ERR_MESSAGE_MALFORMED');
  return result.output;
}
