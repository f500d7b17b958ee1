import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ZtnaError } from '../../../protocol/index.ts';

/** Policy texts by file name. */
export type PolicyFiles = Readonly<Record<string, string>>;

/**
 * What is refused before Cedar sees a text. Its parser recurses once per bracket and once per operator of a
 * chain, and a deep enough text ends not in an error but in a trap that spoils the whole instance.
 */
export const policyLimits = {
  files: 500,
  fileBytes: 65_536,
  totalBytes: 2_097_152,
  policies: 2_000,
  depth: 50, // nested brackets
  operators: 160, // of one policy
  literal: 2_048, // UTF-16 units of one text literal: `like` takes length times length
} as const;

/** A place in a policy file and what is wrong there. */
export interface PolicyProblem {
  readonly file: string;
  readonly line: number; // from 1
  readonly column: number; // from 1
  readonly message: string;
  readonly hint: string | null;
}

/** One policy, as text, and where its file has it. */
export interface PolicyText {
  readonly file: string;
  readonly offset: number; // in UTF-16 units of the file
  readonly text: string;
}

/** Reads every `*.cedar` file of a directory, or one file. Throws ERR_CONFIG_NOT_FOUND or ERR_POLICY_INVALID. */
export function readPolicyFiles(path: string): PolicyFiles {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no ${path}` });
  }
  const names = stat.isDirectory()
    ? readdirSync(path)
        .filter((name) => name.endsWith('.cedar'))
        .sort()
    : [''];
  if (names.length === 0) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: `there is no policy in ${path}`,
      hint: 'put policies into files ending in .cedar',
    });
  }
  const files: Record<string, string> = {};
  for (const name of names) {
    const file = join(path, name);
    if (statSync(file).size > policyLimits.fileBytes) {
      throw new ZtnaError('ERR_POLICY_INVALID', {
        message: `${file} is larger than ${policyLimits.fileBytes} bytes`,
        hint: 'split it',
      });
    }
    files[basename(file)] = readFileSync(file, 'utf8');
  }
  return files;
}

/** Splits files into policies and holds them to the limits. Never throws: what is wrong is in `problems`. */
export function splitPolicies(files: PolicyFiles): {
  readonly texts: readonly PolicyText[];
  readonly problems: readonly PolicyProblem[];
} {
  const texts: PolicyText[] = [];
  const problems: PolicyProblem[] = [];
  const entries = Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1));
  const totalBytes = entries.reduce((sum, [, text]) => sum + Buffer.byteLength(text), 0);
  if (entries.length > policyLimits.files || totalBytes > policyLimits.totalBytes) {
    return { texts, problems: [problemAt('', '', 0, 'these are too many or too large files')] };
  }
  for (const [file, text] of entries) {
    if (Buffer.byteLength(text) > policyLimits.fileBytes) {
      problems.push(
        problemAt(
          file,
          text,
          0,
          `the file is larger than ${policyLimits.fileBytes} bytes`,
          'split it',
        ),
      );
    } else {
      splitFile(file, text, texts, problems);
    }
  }
  if (texts.length > policyLimits.policies) {
    problems.push(problemAt('', '', 0, `there are more than ${policyLimits.policies} policies`));
  }
  return { texts, problems };
}

/** Blank space and comments, string literals, words, and the signs that matter here; anything else one by one. */
const tokenPattern =
  /(?<blank>\s+|\/\/[^\n]*)|(?<string>"(?:[^"\\]|\\.)*")|(?<word>[\p{L}_][\p{L}\p{N}_]*)|&&|\|\||[^]/suy;

const countedWords = new Set(['if', 'in', 'has', 'like', 'is', 'when', 'unless']);
const countedSigns = new Set(['.', '&&', '||', '+', '-', '*', '!', '=', '<', '>']);

function splitFile(
  file: string,
  text: string,
  texts: PolicyText[],
  problems: PolicyProblem[],
): void {
  let start: number | undefined;
  let depth = 0;
  let operators = 0;
  tokenPattern.lastIndex = 0;
  for (let match = tokenPattern.exec(text); match; match = tokenPattern.exec(text)) {
    const [token] = match;
    if (match.groups?.['blank'] !== undefined) continue;
    start ??= match.index;
    if (token === '(' || token === '[' || token === '{') depth++;
    if (token === ')' || token === ']' || token === '}') depth = Math.max(0, depth - 1);
    if (countedSigns.has(token) || countedWords.has(token)) operators++;
    if (depth > policyLimits.depth) {
      const message = `brackets are nested deeper than ${policyLimits.depth}`;
      problems.push(problemAt(file, text, match.index, message, 'simplify the condition'));
      return;
    }
    if (token.length > policyLimits.literal) {
      const message = `a text is longer than ${policyLimits.literal} characters`;
      problems.push(problemAt(file, text, match.index, message, 'shorten it'));
      return;
    }
    if (operators > policyLimits.operators) {
      const message = `the policy has more than ${policyLimits.operators} operators`;
      problems.push(problemAt(file, text, match.index, message, 'split it into several policies'));
      return;
    }
    if (token !== ';' || depth > 0) continue;
    texts.push({ file, offset: start, text: text.slice(start, match.index + 1) });
    start = undefined;
    operators = 0;
  }
  // What follows the last semicolon is not a policy; Cedar will say what it misses.
  if (start !== undefined) texts.push({ file, offset: start, text: text.slice(start) });
}

/** A problem at an offset, in UTF-16 units, of a file's text. */
export function problemAt(
  file: string,
  text: string,
  offset: number,
  message: string,
  hint: string | null = null,
): PolicyProblem {
  const before = text.slice(0, offset);
  const line = before.split('\n').length;
  return { file, line, column: offset - before.lastIndexOf('\n'), message, hint };
}
