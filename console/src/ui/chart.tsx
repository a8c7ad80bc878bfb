/** A line over time, drawn by uPlot. */
import "uplot/dist/uPlot.min.css";
import { useMantineColorScheme } from "@mantine/core";
import { useEffect, useRef } from "react";
import UPlot from "uplot";
import { bytes } from "./time";

interface Props {
  /** Times in seconds since 1970, ascending. */
  times: number[];
  values: number[];
  label: string;
  isBytes?: boolean;
  height?: number;
}

export default function Chart({ times, values, label, isBytes = false, height = 110 }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const { colorScheme } = useMantineColorScheme();

  // biome-ignore lint/correctness/useExhaustiveDependencies: colours are read when the scheme changes
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const style = getComputedStyle(element);
    const text = style.color;
    const line = style.getPropertyValue("--mantine-primary-color-filled");
    const grid = { stroke: style.getPropertyValue("--mantine-color-default-border"), width: 1 };
    const axis = { stroke: text, grid, ticks: grid, font: "11px system-ui" };
    const plot = new UPlot(
      {
        width: element.clientWidth || 240,
        height,
        legend: { show: false },
        cursor: { y: false },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [
          { ...axis, space: 60 },
          {
            ...axis,
            size: 64,
            space: 26,
            values: (_, ticks) => ticks.map((it) => (isBytes ? bytes(it) : String(it))),
          },
        ],
        series: [{}, { label, stroke: line, width: 1.5, fill: `${line}22` }],
      },
      [times, values],
      element,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [times, values, label, isBytes, height, colorScheme]);

  return <div ref={box} className="chart" role="img" aria-label={label} />;
}
