import {
  builtInChecks,
  checkName,
  maxPostureChecks,
  postureMeasures,
  type ExtraCheck,
} from '../protocol/index.ts';
import * as v from 'valibot';
import type { ConfigReader, ConfigValue } from './config-reader.ts';

const kinds = ['process', 'noProcess', 'file', 'noFile', 'registry'] as const;

/** Facts that every client tells; a check of a deployment's own cannot take their names. */
const taken: readonly string[] = [...builtInChecks, ...postureMeasures];

/**
 * Reads `posture.checks` of relay.yaml: a list of `{ id, process | noProcess | file | noFile | registry }`, a file with an optional
 * `sha256`, a registry key with an optional `value` and `equals`. Throws ERR_CONFIG_INVALID.
 */
export function readChecks(reader: ConfigReader, list: ConfigValue | undefined): ExtraCheck[] {
  const items = reader.items(list);
  if (list && items.length > maxPostureChecks - taken.length) {
    throw reader.invalid(
      list,
      `must have at most ${String(maxPostureChecks - taken.length)} checks`,
    );
  }
  const ids = new Set<string>();
  return items.map((item) => {
    const check = readCheck(reader, item);
    if (ids.has(check.id)) throw reader.invalid(item, `repeats the id ${check.id}`);
    ids.add(check.id);
    return check;
  });
}

function readCheck(reader: ConfigReader, item: ConfigValue): ExtraCheck {
  const check = reader.members(item, ['id', ...kinds, 'sha256', 'value', 'equals']);
  if (!check.id) throw reader.invalid(item, 'must have an id');
  const id = reader.text(check.id);
  if (!v.is(checkName, id) || taken.includes(id)) {
    throw reader.invalid(
      check.id,
      'must be a name of its own',
      'use lower-case letters, digits and underscores, and no name of a built-in fact',
    );
  }
  const [kind, ...others] = kinds.filter((name) => check[name]);
  const told = kind && check[kind];
  if (!told || others.length > 0)
    throw reader.invalid(item, `must have one of ${kinds.join(', ')}`);
  const text = reader.text(told);
  if (text.length > 128 && kind.toLowerCase().endsWith('process')) {
    throw reader.invalid(told, 'is too long');
  }
  if (text.length > 512) throw reader.invalid(told, 'is too long');
  if (kind !== 'file' && check.sha256) throw reader.invalid(check.sha256, 'belongs to a file');
  if (kind !== 'registry' && (check.value ?? check.equals)) {
    throw reader.invalid(item, 'has value or equals, which belong to a registry key');
  }
  switch (kind) {
    case 'process':
      return { kind, id, name: text };
    case 'noProcess':
      return { kind: 'no_process', id, name: text };
    case 'file': {
      const sha256 = check.sha256 ? reader.text(check.sha256).toLowerCase() : null;
      if (check.sha256 && !/^[0-9a-f]{64}$/.test(sha256 ?? '')) {
        throw reader.invalid(check.sha256, 'must be a SHA-256 in hex');
      }
      return { kind, id, path: absolute(reader, told, text), sha256 };
    }
    case 'noFile':
      return { kind: 'no_file', id, path: absolute(reader, told, text) };
    case 'registry':
      if (!/^HK(?:LM|CU)\\./.test(text))
        throw reader.invalid(told, 'must begin with HKLM\\ or HKCU\\');
      return {
        kind,
        id,
        key: text,
        value: check.value ? reader.text(check.value).slice(0, 128) : null,
        equals: check.equals ? reader.text(check.equals).slice(0, 256) : null,
      };
  }
}

function absolute(reader: ConfigReader, value: ConfigValue, path: string): string {
  if (/^(?:\/|[A-Za-z]:[\\/])/.test(path)) return path;
  throw reader.invalid(value, 'must be an absolute path');
}
