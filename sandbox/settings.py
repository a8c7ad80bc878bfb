"""Settings, read once from the environment. A test checks docs/settings.md against this file."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sandbox.domain.setting_formats import DiskReserveText, IPv4Networks, Networks, TlsMode

EgressGuard = Literal["auto", "required", "off"]
SeccompProfile = Literal["own", "engine"]


def _default_home() -> Path:
    return Path.home() / ".purple8-sandbox"


class Settings(BaseSettings):
    """The settings of the service. The variable of a field is `SANDBOX_{FIELD}`, or its validation alias."""

    model_config = SettingsConfigDict(env_prefix="SANDBOX_", frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(
        default_factory=_default_home, description="Data folder: embedded database, admin token, agent sockets"
    )
    host: str = Field("127.0.0.1", description="Address the service listens on")
    port: int = Field(8000, ge=1, le=65535, description="Port the service listens on")
    admin_token: str | None = Field(
        None, min_length=16, description="The first admin's token; generated at the first start if absent"
    )
    keys: str | None = Field(
        None,
        repr=False,
        description="Keys that encrypt stored values and sign, the same on all replicas: 32 bytes in base64 each, "
        "separated by commas, the current one first; without them the file `keys` in SANDBOX_HOME",
    )
    database_url: str | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL 14 or newer, in UTF-8; without it an embedded one is started",
    )
    docker_host: str | None = Field(
        None, validation_alias="DOCKER_HOST", description="Container engine; without it the local socket"
    )
    preview_domain: str = Field("preview.localhost", description="Preview hosts are {session_id}.{this domain}")
    preview_by_address: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "Requests between the ports of a session count by the IP address of a sign-in: auto where addresses tell "
            "visitors apart (previews below localhost, or with SANDBOX_TRUSTED_PROXIES), on, off"
        ),
    )
    public_scheme: Literal["http", "https"] = Field("http", description="Scheme of the preview links")
    public_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the preview links; default the service's"
    )
    tls: TlsMode = Field(
        "off",
        description="off; internal: certificates of the edge's own authority; CERTIFICATE:KEY: two PEM files; "
        "acme: from Let's Encrypt, proved by SANDBOX_TLS_DNS",
    )
    tls_dns: str | None = Field(
        None,
        description='DNS provider for SANDBOX_TLS=acme, in Caddy\'s JSON: {"name": "cloudflare", "api_token": "..."}',
    )
    trusted_proxies: Networks = Field(
        "",
        description="Addresses (CIDR, by comma) of proxies in front, whose X-Forwarded-For and -Proto are believed",
    )
    edge: Literal["embedded", "external"] = Field(
        "embedded",
        description="embedded: the service starts the edge; external: others run Caddy in the edge's folder "
        "(docker-compose.yml), and the service configures it",
    )
    edge_program: Path | None = Field(
        None, description="Caddy, the program of the edge; without it the one installed with the service"
    )
    connections_per_address: int = Field(
        0,
        ge=0,
        description="Connections to the edge that one address may have open, by a rule of nftables, which needs root; "
        "this machine and SANDBOX_TRUSTED_PROXIES are exempt. 0: no limit",
    )
    engine_runtime: str | None = Field(None, description="OCI runtime passed to the engine, such as runsc")
    seccomp: SeccompProfile = Field(
        "own",
        description="System calls that sandboxes may use: own is this service's list, engine that of the engine, "
        "which also has ptrace",
    )
    agent_transport: Literal["auto", "socket", "exec"] = Field(
        "auto",
        description="How guest agents are reached: a socket shared with the engine, its exec, or whichever works",
    )
    subnet_pool: str = Field(
        "10.213.0.0/16", description="Address range of the networks of sessions with several roles"
    )
    subnet_prefix: int = Field(28, ge=16, le=29, description="Size of each such network")
    egress_guard: EgressGuard = Field(
        "auto",
        description=(
            "Keep sandboxes from the host and private networks: auto where the host allows it, required to refuse "
            "launches elsewhere, off"
        ),
    )
    egress_permitted: IPv4Networks = Field(
        "", description="Private networks (CIDR, by comma) that sandboxes may reach all the same"
    )
    memory_mb: int = Field(2048, ge=64, description="Memory of each container, MiB")
    memory_max_mb: int = Field(
        4096, ge=64, description="Most memory that a session may ask for, for each container, MiB"
    )
    cpus: float = Field(2.0, gt=0, description="CPUs of each container")
    pids: int = Field(512, ge=32, description="Processes and threads of each container")
    disk_mb: int = Field(
        0,
        ge=0,
        description="Disk space of each workspace, and of the rest of its container, MiB; 0 means no limit. Needs an "
        "engine with its data on XFS with project quotas",
    )
    max_sessions_per_user: int = Field(
        50, ge=1, description="Sessions that a user may have, not counting terminated ones"
    )
    disk_reserve: DiskReserveText = Field(
        "1G",
        description="Free disk space below which nothing new is begun, as 512M, 2G or 5%; 0 means none is kept",
    )
    concurrent_launches: int = Field(8, ge=1, description="Launches one replica runs at once")
    pool_min: int = Field(
        1, ge=0, description="Containers of each runtime that are kept started for the next sessions, at least"
    )
    pool_max: int = Field(
        8,
        ge=0,
        description="And at most: as many as were needed in the busiest of the last ten minutes. 0 means no pool",
    )
    idle_timeout_seconds: int = Field(
        3600, ge=0, description="A session idle for this long ends; requests may ask for less. 0 means never"
    )
    max_lifetime_seconds: int = Field(
        86_400, ge=0, description="A session this old ends; requests may ask for less. 0 means never"
    )
    session_history_days: int = Field(
        30, ge=1, description="Days that events and runs of terminated sessions are kept; their rows and logs stay"
    )
    install_timeout_seconds: int = Field(900, ge=1, description="Timeout of one role's install command")
    installs_mb: int = Field(
        4096,
        ge=0,
        description="Disk space for dependencies kept from earlier launches, MiB, half of it for one user; 0: none",
    )
    health_timeout_seconds: int = Field(
        120, ge=1, description="Timeout of the health check: how long an app may take to answer"
    )
    lessons: bool = Field(
        True, description="Launches apply the remedies that earlier failures of a project have taught; off: they do not"
    )
    lessons_withheld_percent: float = Field(
        10,
        ge=0,
        le=90,
        description="Percent of the runs to which a lesson applies that go without it, to measure it; 0: none",
    )
    refinement_interval_seconds: int = Field(
        3600,
        ge=0,
        description="How often lessons are written from what has failed; 0: only when a project is relaunched",
    )
    lessons_model_url: str | None = Field(
        None,
        pattern="^https?://",
        description="URL with OpenAI's chat API, such as http://host/v1: its model words lessons; without it, rules do",
    )
    lessons_model: str | None = Field(
        None, description="Name of the model at SANDBOX_LESSONS_MODEL_URL, which needs it"
    )
    lessons_model_key: str | None = Field(None, description="Key that is sent to SANDBOX_LESSONS_MODEL_URL")
    engine_wait_seconds: int = Field(
        600,
        ge=0,
        description="How long a launch waits for a container engine that does not answer, before it fails",
    )
    recover_at_start: bool = Field(
        True,
        description="Launch sessions again that ended with the engine, the machine or a full disk, once these are back,"
        " and those whose container or network something outside has removed",
    )
    embeddings_url: str | None = Field(
        None,
        pattern="^https?://",
        description="URL with OpenAI's embeddings API, such as http://host/v1: documents are searched by meaning too",
    )
    embeddings_model: str | None = Field(
        None, description="Name of the model at SANDBOX_EMBEDDINGS_URL, which needs it"
    )
    embeddings_key: str | None = Field(None, description="Key that is sent to SANDBOX_EMBEDDINGS_URL")
    max_upload_mb: int = Field(64, ge=1, description="Largest project archive, MiB")
    max_project_mb: int = Field(512, ge=1, description="Largest unpacked project, MiB")
    max_project_files: int = Field(20_000, ge=1, description="Largest number of files in a project")
    projects_mb_per_user: int = Field(
        4096, ge=0, description="Project archives that one user may store, MiB; 0 means no limit. Admins have none"
    )
    documents_mb_per_user: int = Field(
        256, ge=0, description="Text of documents that one user may store, MiB; 0 means no limit. Admins have none"
    )
    records_mb_per_user: int = Field(
        8192,
        ge=0,
        description="Records and reports that one user may send within SANDBOX_RETENTION_LOGS_DAYS, MiB; 0 means no "
        "limit. What admins send themselves is not counted",
    )
    memory_mb_per_user: int = Field(
        256,
        ge=0,
        description="Values in a user's memory namespaces, with their history, MiB; 0 means no limit. Admins have none",
    )
    max_body_kb: int = Field(1024, ge=1, description="Largest JSON body, KiB")
    max_file_mb: int = Field(1024, ge=1, description="Largest file that is written to a sandbox, MiB")
    requests_per_user: int = Field(
        64, ge=1, description="Requests of one user that are answered at once; more get 429. Eight times as many of all"
    )
    streams_per_user: int = Field(
        64, ge=1, description="Event streams that one user may have open. Eight times as many of all users"
    )
    terminals_per_user: int = Field(
        32, ge=1, description="Terminals that one user may have open. Eight times as many of all users"
    )
    launches_per_user: int = Field(
        6, ge=1, description="Launches of one user that one replica runs at once, so that others need not wait"
    )
    hosts: str = Field(
        "",
        description="Names (by comma) under which clients reach the service, besides addresses, names without a dot, "
        "and names above and below the preview domain",
    )
    log_level: str = Field(
        "INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="DEBUG, INFO, WARNING or ERROR: lowest level that the service prints and stores",
    )
    replica_lease_seconds: int = Field(
        15,
        ge=3,
        description="Lease of a replica on its sessions: after this long without a sign of life, others claim them",
    )

    agent_warning_seconds: int = Field(300, ge=1, description="An agent silent for this long becomes `warning`")
    agent_error_seconds: int = Field(900, ge=1, description="An agent silent for this long becomes `error`")
    alert_interval_seconds: int = Field(30, ge=1, description="How often the alert rules are evaluated")
    alert_webhook_url: str | None = Field(
        None, pattern="^https?://", description="URL to which changes of alerts are posted; without it none are"
    )
    alert_webhook_secret: str | None = Field(
        None, min_length=16, description="Key that signs the posts to SANDBOX_ALERT_WEBHOOK_URL, which needs it"
    )
    retention_logs_days: int = Field(30, ge=1, description="Days that log lines are kept")
    retention_debug_logs_days: int = Field(7, ge=1, description="Days that DEBUG lines are kept")
    retention_traces_days: int = Field(7, ge=1, description="Days that spans are kept")
    retention_coverage_days: int = Field(90, ge=1, description="Days that coverage is kept")
    retention_test_results_days: int = Field(90, ge=1, description="Days until test results go to the archive table")
    retention_alerts_days: int = Field(180, ge=1, description="Days that resolved alerts are kept")
    retention_audit_days: int = Field(365, ge=1, description="Days that entries of the audit log are kept")
    retention_memory_history_days: int = Field(90, ge=1, description="Days that earlier values of memory are kept")
    intake_queue_mb: int = Field(
        64, ge=1, description="Request bodies with records that may wait to be written, MiB; more are refused with 429"
    )
    session_records_per_minute: int = Field(
        20_000,
        ge=1_000,
        description="Log records and spans, or KiB of them, that a session's apps may export; more get 429",
    )
    max_intake_mb: int = Field(16, ge=1, description="Largest decompressed body of records (OTLP, reports), MiB")

    def preview_url(self, session_id: UUID, app_port: int | None = None) -> str:
        """The URL of a session's preview, or of another port of its apps, without the signature that grants access."""
        port = (
            "" if (self.public_scheme, self.preview_port) in (("http", 80), ("https", 443)) else f":{self.preview_port}"
        )
        label = str(session_id) if app_port is None else f"{app_port}-{session_id}"
        return f"{self.public_scheme}://{label}.{self.preview_domain}{port}/"

    @property
    def dns_provider(self) -> dict[str, Any]:
        """Caddy's configuration of the DNS provider; empty if there is none."""
        try:
            value = json.loads(self.tls_dns or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) and isinstance(value.get("name"), str) else {}

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key, if SANDBOX_TLS names them."""
        certificate, colon, key = self.tls.partition(":")
        return (Path(certificate).absolute(), Path(key).absolute()) if colon else None

    @property
    def addresses_count(self) -> bool:
        """Whether a browser that has signed in is known by its IP address where it sends no cookie.

        Behind a proxy that is not named, all visitors have the proxy's address, so that is off unless a name below
        `localhost`, which browsers look for on their own machine, or the named proxies make addresses reliable.
        """
        if self.preview_by_address != "auto":
            return self.preview_by_address == "on"
        local = self.preview_domain.lower().strip(".")
        return local == "localhost" or local.endswith(".localhost") or bool(self.trusted_proxies)

    @property
    def preview_port(self) -> int:
        return self.public_port or self.port

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @field_validator(
        "database_url",
        "docker_host",
        "admin_token",
        "keys",
        "edge_program",
        "tls_dns",
        "engine_runtime",
        "alert_webhook_url",
        "alert_webhook_secret",
        "lessons_model_url",
        "lessons_model",
        "lessons_model_key",
        "embeddings_url",
        "embeddings_model",
        "embeddings_key",
        mode="before",
    )
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def permitted_networks(self) -> list[IPv4Network]:
        """The networks of SANDBOX_EGRESS_PERMITTED."""
        return [IPv4Network(network.strip()) for network in filter(None, self.egress_permitted.split(","))]

    @model_validator(mode="before")
    @classmethod
    def _tls_is_public(cls, values: object) -> object:
        """With TLS the scheme of preview links is https, unless it is set."""
        if isinstance(values, dict) and values.get("tls", "off") != "off":
            values.setdefault("public_scheme", "https")
        return values

    @model_validator(mode="after")
    def _limits_are_of_the_own_edge(self) -> Self:
        if self.connections_per_address and self.edge == "external":
            raise ValueError("connections_per_address is for the embedded edge: limit them where the external one runs")
        return self

    @model_validator(mode="after")
    def _acme_has_a_dns_provider(self) -> Self:
        """A certificate for all names below the preview domain is given only for a proof by DNS."""
        if self.tls == "acme" and self.dns_provider.get("name") is None:
            raise ValueError('tls=acme needs tls_dns, a JSON object such as {"name": "cloudflare", "api_token": "..."}')
        return self

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if self.alert_webhook_url is not None and self.alert_webhook_secret is None:
            raise ValueError("alert_webhook_url needs an alert_webhook_secret, which signs the posts")
        return self

    @model_validator(mode="after")
    def _models_have_names(self) -> Self:
        if self.lessons_model_url is not None and self.lessons_model is None:
            raise ValueError("lessons_model_url needs lessons_model, the name of the model")
        if self.embeddings_url is not None and self.embeddings_model is None:
            raise ValueError("embeddings_url needs embeddings_model, the name of the model")
        return self

    @model_validator(mode="after")
    def _error_comes_after_warning(self) -> Self:
        if self.agent_error_seconds <= self.agent_warning_seconds:
            raise ValueError("agent_error_seconds must be more than agent_warning_seconds")
        return self

    @model_validator(mode="after")
    def _blocks_fit_into_the_pool(self) -> Self:
        if IPv4Network(self.subnet_pool).prefixlen >= self.subnet_prefix:
            raise ValueError(f"subnet_pool {self.subnet_pool} has no room for more than one /{self.subnet_prefix}")
        return self
