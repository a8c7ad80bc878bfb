/** The short history of what a session's containers use. */

/** One measurement of a container. `time` is in seconds since 1970; CPU and network count from the container's start. */
export interface Sample {
  time: number;
  cpu_seconds: number;
  memory_bytes: number;
  disk_used_bytes: number;
  network_received_bytes: number;
  network_sent_bytes: number;
}

export interface History {
  roles: Record<string, Sample[]>;
}

export interface Series {
  title: string;
  unit: "%" | "bytes";
  values: number[];
  latest: number;
}

type Counter = "cpu_seconds" | "network_received_bytes" | "network_sent_bytes";

/** The series that are drawn. Counters are shown as their growth each second. */
export function seriesOf(samples: Sample[]): Series[] {
  const all: [string, "%" | "bytes", number[]][] = [
    ["CPU, of one core", "%", rates(samples, "cpu_seconds").map((it) => it * 100)],
    ["Memory", "bytes", samples.map((it) => it.memory_bytes)],
    ["Disk", "bytes", samples.map((it) => it.disk_used_bytes)],
    ["Received each second", "bytes", rates(samples, "network_received_bytes")],
    ["Sent each second", "bytes", rates(samples, "network_sent_bytes")],
  ];
  return all.map(([title, unit, values]) => ({ title, unit, values, latest: values.at(-1) ?? 0 }));
}

/** The growth of a counter each second. A counter that starts again at zero counts as no growth. */
export function rates(samples: Sample[], field: Counter): number[] {
  return samples.map((sample, index) => {
    const before = samples[index - 1];
    if (!before || sample.time <= before.time) return 0;
    return Math.max(0, sample[field] - before[field]) / (sample.time - before.time);
  });
}
