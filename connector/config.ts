import { isMap, isScalar, LineCounter, parseDocument, type ParsedNode } from 'yaml';
import { nearestWord } from '../protocol/host/index.ts';
import { ZtnaError } from '../protocol/index.ts';
import { checkAppName, type AppMap } from './app-map.ts';
import { maxApps } from './limits.ts';
import { parseTarget, type Target } from './target.ts';

const knownKeys = ['apps'];

/**
 * Reads the text of `connector.yaml`. Everything unknown is an error with its line.
 * Throws ERR_CONFIG_INVALID or ERR_CONFIG_NOT_AVAILABLE.
 */
export function parseConfig(text: string, fileName: string): AppMap {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, merge: false, version: '1.2' });
  const fail = (offset: number | undefined, message: string, hint?: string): never => {
    throw at(fileName, lineOf(lines, offset), 'ERR_CONFIG_INVALID', message, hint);
  };
  const syntax = document.errors[0] ?? document.warnings[0];
  if (syntax) fail(syntax.pos[0], syntax.message.split('\n')[0] ?? 'this is not YAML');
  const top = document.contents;
  const apps = new Map<string, Target>();
  if (top === null || (isScalar(top) && top.value === null)) return apps;
  if (!isMap(top)) return fail(top.range[0], 'expected a line such as "apps:"');
  for (const { key, value } of top.items) {
    const word = wordOf(key);
    if (word !== 'apps') {
      const near = nearestWord(word ?? '', knownKeys);
      fail(key.range[0], `unknown key "${word ?? '?'}"`, near && `did you mean ${near}?`);
    }
    if (value === null || (isScalar(value) && value.value === null)) continue;
    if (!isMap(value)) return fail(value.range[0], 'apps holds lines such as "wiki: tcp://…"');
    if (value.items.length > maxApps) fail(value.range[0], `at most ${maxApps} apps`);
    for (const entry of value.items) {
      const name = wordOf(entry.key) ?? '';
      const line = lineOf(lines, entry.key.range[0]);
      checkAppName(name, `${fileName} line ${line}`);
      const target = wordOf(entry.value);
      if (target === undefined) fail(entry.key.range[0], `${name} needs a target, tcp://HOST:PORT`);
      apps.set(
        name,
        readTarget(target ?? '', (error) =>
          at(fileName, line, error.code, `${name}: ${error.message}`, error.hint),
        ),
      );
    }
  }
  return apps;
}

function readTarget(text: string, locate: (error: ZtnaError) => ZtnaError): Target {
  try {
    return parseTarget(text);
  } catch (error) {
    throw error instanceof ZtnaError ? locate(error) : error;
  }
}

function wordOf(node: ParsedNode | null): string | undefined {
  return isScalar(node) && typeof node.value === 'string' ? node.value : undefined;
}

function lineOf(lines: LineCounter, offset: number | undefined): number {
  return lines.linePos(offset ?? 0).line;
}

function at(
  fileName: string,
  line: number,
  code: ZtnaError['code'],
  message: string,
  hint?: string,
): ZtnaError {
  return new ZtnaError(code, {
    message: `${fileName} line ${line}: ${message}`,
    ...(hint === undefined ? {} : { hint }),
  });
}
