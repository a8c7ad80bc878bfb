"""A small shop with OpenTelemetry. Each request is a span, and each line of the log belongs to the span.

The app does not configure where the telemetry is sent. `opentelemetry-instrument` (see sandbox.toml) reads that from
the variables that are set in every sandbox, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.
"""

import logging
import os

from flask import Flask, abort
from opentelemetry import trace

app = Flask(__name__)
logging.getLogger().setLevel(logging.INFO)
logging.getLogger().addHandler(logging.StreamHandler())  # Print what is exported, too.
log = logging.getLogger("shop")
STOCK = {"nut": 3, "bolt": 0}


@app.get("/")
def index():
    return "A shop. Buy something: /buy/nut"


@app.get("/buy/<item>")
def buy(item):
    if item not in STOCK:
        log.error("nobody sells %s", item)
        abort(404)
    with trace.get_tracer("shop").start_as_current_span("take from stock") as span:
        span.set_attribute("shop.item", item)
        if not STOCK[item]:
            log.warning("%s is sold out", item)
    return {"item": item, "trace_id": f"{span.get_span_context().trace_id:032x}"}


if __name__ == "__main__":
    app.run("127.0.0.1", int(os.environ["PORT"]))
