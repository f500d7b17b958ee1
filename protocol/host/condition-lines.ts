/** One condition of a rule, as people are told of it. */
export interface ShownCondition {
  readonly what: string;
  readonly actual: string;
  readonly required: string;
  readonly met: boolean;
  /** Of those of one rule with the same number, which follow one another, one is enough. */
  readonly choice?: number | null | undefined;
}

/**
 * Conditions as aligned lines: whether each is met, what it looks at, how that is, and how it must be where that is not the
 * same word. Texts are not escaped yet.
 */
export function conditionLines(conditions: readonly ShownCondition[]): string[] {
  const widthOf = (member: 'what' | 'actual') =>
    Math.max(0, ...conditions.map((condition) => Math.min(condition[member].length, maxWidth)));
  const widths = { what: widthOf('what'), actual: widthOf('actual') };
  return conditions.map(({ what, actual, required, met, choice }, at) => {
    const isSame = met && actual === required;
    const hasMore = choice != null && conditions[at + 1]?.choice === choice;
    const need = isSame ? '' : `must be ${required}${hasMore ? ', or' : ''}`;
    const mark = met ? 'met    ' : 'not met';
    const facts = `${what.padEnd(widths.what)}  ${actual.padEnd(widths.actual)}`;
    return `  ${mark}  ${facts}  ${need}`.trimEnd();
  });
}

/** A longer text is shown whole, and not waited for by the others. */
const maxWidth = 40;
