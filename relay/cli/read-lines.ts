import { ZtnaError } from '../../protocol/index.ts';

const newline = 0x0a;

/** The lines of a stream without their ends, one at a time. Throws ERR_CONFIG_INVALID for one above `maxBytes`. */
export async function* readLines(
  stream: AsyncIterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<string> {
  let parts: Buffer[] = [];
  let bytes = 0;
  const hold = (part: Buffer) => {
    parts.push(part);
    bytes += part.length;
    if (bytes <= maxBytes) return;
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `a line is longer than ${maxBytes} bytes`,
    });
  };
  for await (const chunk of stream) {
    let from = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, from)) {
      hold(chunk.subarray(from, end));
      yield Buffer.concat(parts).toString('utf8');
      parts = [];
      bytes = 0;
      from = end + 1;
    }
    if (from < chunk.length) hold(chunk.subarray(from));
  }
  if (bytes > 0) yield Buffer.concat(parts).toString('utf8');
}
