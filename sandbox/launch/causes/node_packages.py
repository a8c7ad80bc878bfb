"""Errors of npm, pnpm and Yarn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.launch.causes.cause import Cause

_NPM = re.compile(r"^npm (?:error|ERR!)(?: (?P<text>.*))?$")
#: What npm prints in its block without naming a reason: usage, advice and where its log is.
_NPM_NOISE = re.compile(
    r"(?:\d+|notarget|404)?\s*(?:Clean install a project|Usage:|npm ci|Options:|\[-.*|aliases:.*|Run \"npm help .*"
    r"|A complete log of this run .*|Note that you can also install from a|tarball, folder, http url, or git url\."
    r"|In most cases you or one of your dependencies are requesting|a package version that doesn't exist\."
    r"|For a full report see:|/\S*eresolve-report\.txt|To see a list of scripts, run:|npm run)?"
)
#: A script of the project failed; what it printed before says why.
_NPM_LIFECYCLE = re.compile(r"Lifecycle script `|code ELIFECYCLE|Failed at the .* script|Exit status \d+$")
_PNPM = re.compile(r"(?P<code>ERR_PNPM_[A-Z0-9_]+)\s+(?P<text>.*)$")
_PNPM_SCRIPTS = ("ERR_PNPM_RECURSIVE_RUN_FIRST_FAIL", "ERR_PNPM_RECURSIVE_EXEC_FIRST_FAIL")
_YARN = re.compile(r"^error (?P<text>.+)$")
_YARN_TITLE = re.compile(r"^yarn \w+ v\d")
_BERRY = re.compile(r"^➤ (?P<code>YN\d{4}): (?:[│┌└·]\s?)*(?P<text>.*)$")
#: Messages of Yarn 2 and later that are progress or warnings.
_BERRY_CODES = frozenset({"YN0001", "YN0009", "YN0016", "YN0028", "YN0035", "YN0041", "YN0082"})
#: The name of a package. It begins a word and is bounded, so that long lines are read in linear time.
_PACKAGE = r"(?<![\w.-])(?P<package>(?:@[\w.-]{1,213}/)?[A-Za-z0-9][\w.-]{0,213})"
_VERSION = r"(?P<version>[^\s'\"`,]+?)"

_CODES = {
    "E404": FailureCause.PACKAGE_NOT_FOUND,
    "ETARGET": FailureCause.VERSION_NOT_FOUND,
    "ERESOLVE": FailureCause.CONFLICTING_VERSIONS,
    "EBADENGINE": FailureCause.RUNTIME_VERSION,
    "EBADPLATFORM": FailureCause.WRONG_PLATFORM,
    "EJSONPARSE": FailureCause.SYNTAX_ERROR,
    "ENOSPC": FailureCause.DISK_FULL,
    "EACCES": FailureCause.PERMISSION_DENIED,
    "ENOTFOUND": FailureCause.NETWORK_UNREACHABLE,
    "EAI_AGAIN": FailureCause.NETWORK_UNREACHABLE,
    "ECONNREFUSED": FailureCause.NETWORK_UNREACHABLE,
    "ETIMEDOUT": FailureCause.NETWORK_UNREACHABLE,
    "SELF_SIGNED_CERT_IN_CHAIN": FailureCause.CERTIFICATE_REFUSED,
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": FailureCause.CERTIFICATE_REFUSED,
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": FailureCause.CERTIFICATE_REFUSED,
    "ERR_PNPM_FETCH_404": FailureCause.PACKAGE_NOT_FOUND,
    "ERR_PNPM_NO_MATCHING_VERSION": FailureCause.VERSION_NOT_FOUND,
    "ERR_PNPM_OUTDATED_LOCKFILE": FailureCause.LOCK_OUT_OF_STEP,
    "ERR_PNPM_LOCKFILE_CONFIG_MISMATCH": FailureCause.LOCK_OUT_OF_STEP,
    "ERR_PNPM_UNSUPPORTED_ENGINE": FailureCause.RUNTIME_VERSION,
    "ERR_PNPM_UNSUPPORTED_PLATFORM": FailureCause.WRONG_PLATFORM,
    "ERR_PNPM_PEER_DEP_ISSUES": FailureCause.CONFLICTING_VERSIONS,
    "ERR_PNPM_NO_SCRIPT": FailureCause.MISSING_SCRIPT,
    "YN0028": FailureCause.LOCK_OUT_OF_STEP,
    "YN0035": FailureCause.PACKAGE_NOT_FOUND,
    "YN0082": FailureCause.VERSION_NOT_FOUND,
}
#: Sentences that decide the cause without a code, or name its particulars.
_SENTENCES: tuple[tuple[re.Pattern[str], FailureCause], ...] = (
    (re.compile(rf"'{_PACKAGE}@[^']{{0,200}}' is not in this registry"
                rf"|{_PACKAGE.replace('package', 'other')}: Not Found - 404"),
     FailureCause.PACKAGE_NOT_FOUND),
    (re.compile(rf"No matching version found for {_PACKAGE}@{_VERSION}\.?(?:\s|$)"), FailureCause.VERSION_NOT_FOUND),
    (re.compile(rf"Couldn't find package \"{_PACKAGE}(?:@[^\"]{{0,200}})?\""), FailureCause.PACKAGE_NOT_FOUND),
    (re.compile(rf"Couldn't find any versions for \"{_PACKAGE}\" that matches \"{_VERSION}\""),
     FailureCause.VERSION_NOT_FOUND),
    (re.compile(r"can only install packages when your package\.json and .* are in sync|lockfile needs to be updated"
                r"|lockfile would have been modified"), FailureCause.LOCK_OUT_OF_STEP),
    (re.compile(rf"Unsupported platform for {_PACKAGE}@{_VERSION}:"), FailureCause.WRONG_PLATFORM),
    (re.compile(rf"{_PACKAGE}@[^:\s]{{1,100}}: The engine \"node\" is incompatible.{{0,500}}?"
                r"Expected version \"(?P<version>[^\"]+)\""),
     FailureCause.RUNTIME_VERSION),
    (re.compile(r"Not compatible with your version of node/npm: (?P<package>\S{1,213}?)@\d.{0,500}?"
                r"Required: \{\"node\":\"(?P<version>[^\"]+)\""),
     FailureCause.RUNTIME_VERSION),
    (re.compile(r"Missing script:? \"?(?P<program>[\w:.-]+)\"?"), FailureCause.MISSING_SCRIPT),
    (re.compile(rf"path \S*/node_modules/{_PACKAGE} .*command (?:failed|sh)"), FailureCause.BUILD_FAILED),
)  # fmt: skip
_HINTS = {
    FailureCause.PACKAGE_NOT_FOUND: "There is no package {package} in the registry: check its name.",
    FailureCause.VERSION_NOT_FOUND: "There is no version {version} of {package}: ask for one that exists.",
    FailureCause.LOCK_OUT_OF_STEP: "Run `{tool} install` where the project was made and upload the lock file that it "
    "writes, or remove the lock file.",
    FailureCause.WRONG_PLATFORM: "{package} is for another system: move it to optionalDependencies, or remove it.",
    FailureCause.MISSING_SCRIPT: "package.json has no script {program}: add it, or name another start command.",
    FailureCause.RUNTIME_VERSION: "{package} asks for Node.js {version}, which is not the runtime's: ask for another "
    "version of {package}, or change engines in package.json.",
}


def read_npm(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """npm's block of errors, without its usage and advice."""
    marked = [(at, match["text"] or "") for at, line in enumerate(lines) if (match := _NPM.match(line))]
    if not marked or any(_NPM_LIFECYCLE.search(text) for _, text in marked):
        return None
    shown = dict.fromkeys(lines[at].rstrip() for at, text in marked if not _NPM_NOISE.fullmatch(text.strip()))
    texts = [text for _, text in marked]
    code = next((text.removeprefix("code ") for text in texts if text.startswith("code ")), None)
    return _cause("npm", tuple(shown), marked[-1][0] + 1, code, " ".join(texts))


def read_pnpm(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """pnpm's error, to the end of the output."""
    for at in range(len(lines) - 1, -1, -1):
        match = _PNPM.search(lines[at])
        if match and match["code"] not in _PNPM_SCRIPTS:
            rest = lines[at:]
            return _cause("pnpm", tuple(line.strip() for line in rest), len(lines), match["code"], " ".join(rest))
    return None


def read_yarn(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """The errors of Yarn 1, or the messages of later ones that are errors."""
    berry = [(at, match) for at, line in enumerate(lines) if (match := _BERRY.match(line))]
    failed = [(at, match) for at, match in berry if match["code"] in _BERRY_CODES]
    if failed:
        shown = tuple(dict.fromkeys(match["text"] for _, match in failed if match["text"]))
        return _cause("yarn", shown, failed[-1][0] + 1, failed[0][1]["code"], " ".join(shown))
    classic = [(at, match["text"]) for at, line in enumerate(lines) if (match := _YARN.match(line))]
    classic = [(at, text) for at, text in classic if not text.startswith("Command failed")]
    if not classic or not any(_YARN_TITLE.match(line) for line in lines):
        return None
    texts = [text for _, text in classic]
    return _cause("yarn", tuple(texts), classic[-1][0] + 1, None, " ".join(texts))


def _cause(tool: str, lines: tuple[str, ...], end: int, code: str | None, text: str) -> Cause:
    evidence = FailureEvidence(tool=tool, error=code, cause=_CODES.get(code or ""))
    for pattern, cause in _SENTENCES:
        if match := pattern.search(text):
            found = match.groupdict()
            evidence = replace(
                evidence,
                cause=evidence.cause or cause,
                package=found.get("package") or found.get("other"),
                version=found.get("version"),
                program=found.get("program"),
            )
            break
    return Cause(lines, end, evidence, _hint(evidence))


def _hint(evidence: FailureEvidence) -> str:
    """The hint of the cause, if everything that it names is known."""
    if evidence.error == "ERESOLVE":
        return (
            "Ask for versions that agree, or install without the check: "
            'install = "npm install --legacy-peer-deps" in sandbox.toml.'
        )
    template = _HINTS.get(evidence.cause) if evidence.cause else None
    known = {"package": evidence.package, "version": evidence.version, "program": evidence.program}
    if template is None or any(f"{{{name}}}" in template and value is None for name, value in known.items()):
        return ""
    return template.format(tool=evidence.tool, **known)
