"""The smallest project there is: no manifest, one file."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root() -> dict[str, str]:
    return {"hello": "sandbox"}
