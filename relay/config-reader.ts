import { isMap, isScalar, isSeq, LineCounter, parseDocument, type ParsedNode } from 'yaml';
import { nearestWord } from '../protocol/host/index.ts';
import { ZtnaError, type ErrorCode } from '../protocol/index.ts';

/** Larger configuration files are a mistake. */
const maxConfigBytes = 262_144;

/** A value of a configuration file that knows where it stands. */
export interface ConfigValue {
  readonly name: string;
  readonly key: string; // dotted path from the top, for messages
  readonly line: number;
  readonly node: ParsedNode | null;
}

/** Reads YAML so that every error names its line. Throws ERR_CONFIG_INVALID or ERR_CONFIG_NOT_AVAILABLE. */
export class ConfigReader {
  readonly #file: string;
  readonly #lines = new LineCounter();

  constructor(file: string) {
    this.#file = file;
  }

  /** The top-level mapping of `text`; an empty file is an empty mapping. */
  parse(text: string): ConfigValue {
    if (text.length > maxConfigBytes)
      throw this.#error('ERR_CONFIG_INVALID', 1, 'the file is too large');
    const document = parseDocument(text, {
      lineCounter: this.#lines,
      strict: true,
      uniqueKeys: true,
      merge: false,
      stringKeys: true,
    });
    const [problem] = document.errors;
    if (problem) {
      const { line } = this.#lines.linePos(problem.pos[0]);
      throw this.#error('ERR_CONFIG_INVALID', line, problem.message.split('\n')[0] ?? 'not YAML');
    }
    return { name: '', key: '', line: 1, node: document.contents };
  }

  /**
   * The members of a mapping by name. A name outside `known` is an error with the nearest known word; one of
   * `later` is told to be unavailable.
   */
  members<K extends string>(
    value: ConfigValue | undefined,
    known: readonly K[],
    later: readonly string[] = [],
  ): Partial<Record<K, ConfigValue>> {
    const members: Partial<Record<K, ConfigValue>> = {};
    for (const member of this.entries(value)) {
      const { name } = member;
      if (later.includes(name)) {
        throw this.#error(
          'ERR_CONFIG_NOT_AVAILABLE',
          member.line,
          `${member.key} is not available yet`,
        );
      }
      if (!known.includes(name as K)) {
        const near = nearestWord(name, [...known, ...later]);
        const hint =
          near === undefined ? `known here: ${known.join(', ')}` : `did you mean ${near}?`;
        throw this.#error(
          'ERR_CONFIG_INVALID',
          member.line,
          `unknown key ${quoted(member.key)}`,
          hint,
        );
      }
      members[name as K] = member;
    }
    return members;
  }

  /** Every member of a mapping with names that the file chose. */
  entries(value: ConfigValue | undefined): ConfigValue[] {
    if (!value?.node || (isScalar(value.node) && value.node.value === null)) return [];
    if (!isMap(value.node)) throw this.invalid(value, 'must be a mapping of keys to values');
    return value.node.items.map((pair) => {
      const name = isScalar(pair.key) ? String(pair.key.value) : '';
      const at = pair.key.range[0];
      return {
        name,
        key: value.key === '' ? name : `${value.key}.${name}`,
        line: this.#lines.linePos(at).line,
        node: pair.value,
      };
    });
  }

  /** The items of a list; none where nothing is said. */
  items(value: ConfigValue | undefined): ConfigValue[] {
    if (!value?.node || (isScalar(value.node) && value.node.value === null)) return [];
    if (!isSeq(value.node)) throw this.invalid(value, 'must be a list');
    return value.node.items.map((node, index) => {
      const at = node.range[0];
      const key = `${value.key}[${String(index)}]`;
      return { name: String(index), key, line: this.#lines.linePos(at).line, node };
    });
  }

  /** The text of a scalar as it was written: `443` and `"443"` alike. */
  text(value: ConfigValue): string {
    const { node } = value;
    if (!isScalar(node) || node.value === null || node.source === '') {
      throw this.invalid(value, 'must have a value');
    }
    return node.source;
  }

  invalid(value: ConfigValue, what: string, hint?: string): ZtnaError {
    return this.#error(
      'ERR_CONFIG_INVALID',
      value.line,
      `${value.key || 'the file'} ${what}`,
      hint,
    );
  }

  #error(code: ErrorCode, line: number, what: string, hint?: string): ZtnaError {
    return new ZtnaError(code, {
      message: `${this.#file}:${line}: ${what}`,
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
