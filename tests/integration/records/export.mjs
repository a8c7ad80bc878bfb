// Spans and a log record by the OpenTelemetry SDK for JavaScript: protobuf, then JSON.
import { context, trace, SpanStatusCode } from "@opentelemetry/api";
import { logs, SeverityNumber } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtobufExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [url, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };
const found = {};
for (const [name, Exporter] of [["json", JsonExporter], ["protobuf", ProtobufExporter]]) {
  const exporter = new Exporter({ url: `${url}/v1/traces`, headers, compression: name === "json" ? "none" : "gzip" });
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ "service.name": `js-${name}` }),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  const tracer = provider.getTracer("tests");
  const root = tracer.startSpan("order", { attributes: { "http.method": "GET", items: [1, 2] } });
  const child = tracer.startSpan("pay", {}, trace.setSpan(context.active(), root));
  child.recordException(new TypeError("card is undefined"));
  child.setStatus({ code: SpanStatusCode.ERROR, message: "no card" });
  child.end();
  root.end();
  await provider.shutdown();
  found[name] = root.spanContext().traceId;
}
const exporter = new OTLPLogExporter({ url: `${url}/v1/logs`, headers });
const provider = new LoggerProvider({
  resource: resourceFromAttributes({ "service.name": "js-logs" }),
  processors: [new BatchLogRecordProcessor({ exporter })],
});
provider.getLogger("tests").emit({ severityNumber: SeverityNumber.WARN, body: "low stock", attributes: { item: "nut" } });
await provider.shutdown();
console.log(JSON.stringify(found));
