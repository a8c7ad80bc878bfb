"""The package manager of Node.js apps, from the whole project, and lock files that do not fit this system."""

import json

import pytest

from sandbox.projects.detection.detect import PlanUndetected
from tests.unit.projects.small_projects import PlanOf, only, package

WEB = package(scripts={"dev": "vite"}, devDependencies={"vite": "6"})
BERRY = "YARN_NODE_LINKER=node-modules corepack yarn@4 install"


@pytest.mark.parametrize(
    ("above", "install"),
    [
        ({"pnpm-workspace.yaml": "packages: [apps/*]", "package.json": package()}, "pnpm install"),
        (
            {"pnpm-workspace.yaml": "", "pnpm-lock.yaml": "", "package.json": package()},
            "pnpm install --frozen-lockfile",
        ),
        ({"package.json": package(packageManager="pnpm@9.1.0")}, "pnpm install"),
        ({"package.json": package(devEngines={"packageManager": {"name": "yarn"}})}, "yarn install"),
        ({"package.json": package(workspaces=["apps/*"]), "package-lock.json": "{}"}, "npm ci"),
        ({"package.json": package(workspaces=["apps/*"]), "yarn.lock": ""}, "yarn install --frozen-lockfile"),
        ({"package.json": package(workspaces=["apps/*"]), "yarn.lock": "__metadata:\n  version: 8"}, BERRY),
        # The lock file of other tools does not apply to an app that is no part of a workspace.
        ({"package.json": package(), "package-lock.json": "{}"}, "npm install"),
        ({"package.json": package(), "pnpm-lock.yaml": ""}, "pnpm install"),
    ],
)
def test_the_package_manager_of_the_folders_above(plan_of: PlanOf, above: dict[str, str], install: str) -> None:
    assert plan_of({**above, "apps/web/package.json": WEB}).roles["frontend"].install == install


def test_an_own_lock_file_comes_before_those_above(plan_of: PlanOf) -> None:
    files = {"pnpm-workspace.yaml": "", "web/package.json": WEB, "web/yarn.lock": ""}
    assert plan_of(files).roles["frontend"].install == "yarn install --frozen-lockfile"


@pytest.mark.parametrize(
    ("more", "install"),
    [
        ({"bun.lock": ""}, "npm install"),
        ({"bun.lockb": "", "package.json": package(scripts={"dev": "vite"}, dependencies={"a": "workspace:*"})}, BERRY),
        ({"yarn.lock": "", ".yarnrc.yml": "nodeLinker: pnp"}, BERRY),
    ],
)
def test_package_managers_without_a_stated_version(plan_of: PlanOf, more: dict[str, str], install: str) -> None:
    assert only(plan_of({"package.json": WEB, **more}))[1].install == install


def lock(*contained: str) -> str:
    optional = {
        "@rollup/rollup-darwin-arm64": "4",
        "@rollup/rollup-linux-x64-gnu": "4",
        "@rollup/rollup-linux-arm64-gnu": "4",
    }
    packages = {"": {}, "node_modules/rollup": {"optionalDependencies": optional}}
    return json.dumps({"packages": packages | {f"node_modules/{name}": {} for name in contained}})


@pytest.mark.parametrize("native", ["@esbuild/linux-x64", "turbo-linux-64", "lightningcss-linux-x64-gnu"])
def test_native_packages_are_recognised_by_their_names(plan_of: PlanOf, native: str) -> None:
    packages = {"": {}, "node_modules/tool": {"optionalDependencies": {native: "1", "tool-darwin-arm64": "1"}}}
    files = {"package.json": WEB, "package-lock.json": json.dumps({"packages": packages})}
    assert f"lacks {native}:" in str(only(plan_of(files))[1].install)


@pytest.mark.parametrize(
    ("content", "install"),
    [
        (lock("@rollup/rollup-darwin-arm64", "@rollup/rollup-linux-x64-gnu"), "npm ci"),
        (lock("@rollup/rollup-linux-arm64-gnu"), "npm ci"),
        ("not JSON", "npm ci"),
        (
            lock("@rollup/rollup-darwin-arm64"),
            "echo 'The lock file lacks @rollup/rollup-linux-x64-gnu: installing without it'"
            " && npm install --no-package-lock",
        ),
    ],
)
def test_a_lock_file_from_another_system_is_not_followed(plan_of: PlanOf, content: str, install: str) -> None:
    assert only(plan_of({"package.json": WEB, "package-lock.json": content}))[1].install == install


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (package(scripts={"docs:dev": "vitepress dev docs"}), "npm run docs:dev -- --host 0.0.0.0 --port 5173"),
        (
            package(scripts={"build": "docusaurus build"}, dependencies={"@docusaurus/core": "3"}),
            "npx docusaurus start --host 0.0.0.0 --port 3000 --no-open",
        ),
        (package(scripts={"start": "eleventy --serve"}), "npm run start -- --serve --port=8080"),
        (package(scripts={"dev": "tsup --watch", "storybook": "storybook dev -p 6006"}),
         "npm run storybook -- --host 0.0.0.0 --port 6006 --ci"),
        (package(scripts={"start": "next start", "build": "next build"}, dependencies={"next": "15"}),
         "npm run build && npm start"),
        (package(scripts={"preview": "vite preview", "build": "vite build"}, devDependencies={"vite": "6"}),
         "npx vite --host 0.0.0.0 --port 5173 --strictPort"),
        (package(scripts={"develop": "strapi develop"}), "npm run develop"),
        (package(scripts={"start": "parcel src/index.html"}), "npm run start -- --host 0.0.0.0 --port 1234"),
        (package(scripts={"server": "json-server db.json"}, devDependencies={"json-server": "1"}), "npm run server"),
        (package(scripts={"watch": "tsc -w", "api:dev": "wasp start"}), "npm run api:dev"),
    ],
)  # fmt: skip
def test_a_start_is_found_by_what_scripts_run(plan_of: PlanOf, content: str, start: str) -> None:
    assert only(plan_of({"package.json": content}))[1].start == start


@pytest.mark.parametrize(
    "scripts",
    [
        {"docs:build": "vitepress build docs"},
        {"start": "tsc --watch", "dev": "rollup -c -w", "demo:deploy": "gh-pages deploy dist"},
        {"dev": "eslint . --fix", "serve": "echo none"},
    ],
)
def test_scripts_that_build_or_watch_start_no_server(plan_of: PlanOf, scripts: dict[str, str]) -> None:
    with pytest.raises(PlanUndetected) as refused:
        plan_of({"package.json": package(scripts=scripts)})
    assert refused.value.looked_at[0].startswith("package.json: no script starts a server (scripts: ")


def test_a_program_for_the_whole_machine_is_installed(plan_of: PlanOf) -> None:
    plan = only(plan_of({"package.json": package(scripts={"dev": "bun run --hot src/index.ts"})}))[1]
    assert (plan.start, plan.install) == ("npm run dev", "npm install --no-save bun")


def test_the_top_of_a_workspace_does_not_start_its_apps_again(plan_of: PlanOf) -> None:
    top = package(scripts={"dev": "turbo run dev"}, workspaces=["apps/*"])
    assert list(plan_of({"package.json": top, "apps/web/package.json": WEB}).roles) == ["frontend"]
    alone = plan_of({"package.json": top, "packages/a/package.json": package()})
    assert alone.roles["backend"].start == "npm run dev"
