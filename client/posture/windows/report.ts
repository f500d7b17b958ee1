import * as v from 'valibot';
import type { ToolAnswer } from '../run-tool.ts';

/** What one of our PowerShell scripts printed: an object of sections, each judged by itself. */
export type WindowsReport = Readonly<Record<string, unknown>>;

const reportSchema = v.record(v.string(), v.unknown());

/** The object that a script printed; undefined when it is none. */
export function readReport(answer: ToolAnswer): WindowsReport | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  try {
    const value: unknown = JSON.parse(answer.stdout.replace(/^\uFEFF/, ''));
    const parsed = v.safeParse(reportSchema, value);
    return parsed.success && !Array.isArray(value) ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** A section of a report, if it is of that shape. */
export function sectionOf<T>(
  report: WindowsReport | undefined,
  name: string,
  schema: v.GenericSchema<unknown, T>,
): T | undefined {
  const parsed = v.safeParse(schema, report?.[name]);
  return parsed.success ? parsed.output : undefined;
}

/** A whole number as PowerShell prints it. */
export const whole = v.pipe(v.number(), v.safeInteger());
