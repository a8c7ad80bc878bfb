"""Files of small projects, and helpers for the tests of detection."""

import json
from collections.abc import Callable

from sandbox.domain.plan import LaunchPlan, RolePlan

PlanOf = Callable[..., LaunchPlan]

VENV = "uv venv --allow-existing --python 3.12"
FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"


def package(**content: object) -> str:
    return json.dumps({"name": "x", **content})


VITE = package(scripts={"dev": "vite"}, devDependencies={"vite": "^6"})
EXPRESS = package(scripts={"start": "node server.js"}, dependencies={"express": "^4"})


def only(plan: LaunchPlan) -> tuple[str, RolePlan]:
    assert len(plan.roles) == 1, plan
    return next(iter(plan.roles.items()))
