import { off, on, unknown, type Finding } from '../finding.ts';
import type { Machine } from '../machine.ts';
import { describeFailure, linesOf, type ToolAnswer } from '../run-tool.ts';

export interface RegistryCheck {
  readonly key: string;
  readonly value: string | null;
  readonly equals: string | null;
}

const reg = ['C:\\Windows\\System32\\reg.exe'];

/** Whether the registry holds this key, value or data. Other machines' registries are not asked. */
export async function findRegistry(
  { key, value, equals }: RegistryCheck,
  machine: Machine,
  signal: AbortSignal,
): Promise<Finding> {
  if (machine.platform !== 'win32') return unknown('the registry is one of Windows');
  if (!/^HK(?:LM|CU)\\[^\\]/.test(key) || value?.startsWith('/') === true)
    return unknown('the check names no key below HKLM or HKCU');
  const args = ['query', key, ...(value === null ? [] : ['/v', value])];
  return parseReg(await machine.run(reg, args, { signal }), value, equals);
}

/** What `reg.exe query` says of it. It ends with 1 for what is not there, in the words of the system's language. */
export function parseReg(answer: ToolAnswer, value: string | null, equals: string | null): Finding {
  if ('failure' in answer) return unknown(describeFailure('reg.exe', answer));
  if (answer.exitCode === 1) return off('the registry has no such key or value');
  if (answer.exitCode !== 0) return unknown('reg.exe was not understood');
  if (value === null)
    return /^HKEY_/m.test(answer.stdout)
      ? on('the key is there')
      : unknown('reg.exe was not understood');
  const data = readData(answer.stdout, value);
  if (data === undefined) return unknown('reg.exe was not understood');
  if (equals === null || data === equals) return on('the value is there');
  const isNumber = /^0x[0-9a-f]{1,16}$/.test(data) && /^\d{1,20}$/.test(equals);
  return isNumber && BigInt(data) === BigInt(equals)
    ? on('the value is there')
    : off('the value is another one');
}

function readData(text: string, value: string): string | undefined {
  for (const line of linesOf(text)) {
    if (!line.toLowerCase().startsWith(`${value.toLowerCase()}    REG_`.toLowerCase())) continue;
    const rest = line.slice(value.length);
    const data = /^ {4}REG_[A-Z_]{1,32}(?: {4}(.*))?$/.exec(rest);
    if (data) return data[1] ?? '';
  }
  return undefined;
}
