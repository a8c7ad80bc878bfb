"""A small shop that says what it does: each request is a span, each line it logs a record of that span.

Nothing here says where to. `opentelemetry-instrument` (see sandbox.toml) reads that from the variables that every
sandbox has, `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin.
"""

import logging
import os

from flask import Flask, abort
from opentelemetry import trace

app = Flask(__name__)
logging.getLogger().setLevel(logging.INFO)
logging.getLogger().addHandler(logging.StreamHandler())  # what is reported is printed as well
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
