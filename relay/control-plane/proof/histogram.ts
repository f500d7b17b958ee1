/** Upper bounds of the classes, in seconds. */
const boundsSeconds = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60];

/** How long something took, counted in classes, by labels. */
export class Histogram {
  readonly #series = new Map<
    string,
    { readonly labels: Record<string, string>; counts: number[]; sum: number; count: number }
  >();

  observe(labels: Record<string, string>, seconds: number): void {
    const key = JSON.stringify(labels);
    const series = this.#series.get(key) ?? {
      labels,
      counts: boundsSeconds.map(() => 0),
      sum: 0,
      count: 0,
    };
    this.#series.set(key, series);
    series.sum += seconds;
    series.count += 1;
    for (const [at, bound] of boundsSeconds.entries()) {
      if (seconds <= bound) series.counts[at] = (series.counts[at] ?? 0) + 1;
    }
  }

  /** Rows of Prometheus' text form: suffix of the name, labels, value. */
  rows(): {
    readonly suffix: string;
    readonly labels: Record<string, string>;
    readonly value: number;
  }[] {
    return [...this.#series.values()].flatMap(({ labels, counts, sum, count }) => [
      ...boundsSeconds.map((bound, at) => ({
        suffix: '_bucket',
        labels: { ...labels, le: String(bound) },
        value: counts[at] ?? 0,
      })),
      { suffix: '_bucket', labels: { ...labels, le: '+Inf' }, value: count },
      { suffix: '_sum', labels, value: sum },
      { suffix: '_count', labels, value: count },
    ]);
  }
}
