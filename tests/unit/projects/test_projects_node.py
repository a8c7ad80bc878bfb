"""Detection of small Node projects."""

import pytest

from tests.unit.projects.small_projects import EXPRESS, VITE, PlanOf, only, package


@pytest.mark.parametrize(
    ("package_json", "framework", "start", "port"),
    [
        (VITE, "vite", "npm run dev -- --host 0.0.0.0 --port 5173 --strictPort", 5173),
        (
            package(scripts={"start": "vite --port 3000"}),
            "vite",
            "npm run start -- --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(scripts={"dev": "npm run gen && cross-env A=b vite dev --open"}),
            "vite",
            "npm run dev -- --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(devDependencies={"vite": "6"}, scripts={"build": "vite build"}),
            "vite",
            "npx vite --host 0.0.0.0 --port 5173 --strictPort",
            5173,
        ),
        (
            package(devDependencies={"vite": "6"}, scripts={"dev": 'concurrently "vite" "node server.js"'}),
            "vite",
            "npm run dev",
            5173,
        ),
        (
            package(scripts={"dev": "next dev --turbopack"}),
            "next",
            "npm run dev -- --hostname 0.0.0.0 --port 3000",
            3000,
        ),
        (package(scripts={"start": "react-scripts start"}), "create-react-app", "npm run start", 3000),
        (package(scripts={"dev": "astro dev"}), "astro", "npm run dev -- --host 0.0.0.0 --port 4321", 4321),
        (package(scripts={"start": "ng serve"}), "angular", "npm run start -- --host 0.0.0.0 --port 4200", 4200),
        (
            package(scripts={"serve": "vue-cli-service serve"}),
            "vue-cli",
            "npm run serve -- --host 0.0.0.0 --port 8080",
            8080,
        ),
    ],
)
def test_node_user_interfaces(plan_of: PlanOf, package_json: str, framework: str, start: str, port: int) -> None:
    role, plan = only(plan_of({"package.json": package_json}))
    assert (role, plan.runtime, plan.framework) == ("frontend", "node20", framework)
    assert (plan.start, plan.port, plan.install) == (start, port, "npm install")


@pytest.mark.parametrize(
    ("files", "framework", "start", "port"),
    [
        (
            {
                "package.json": package(scripts={"start": "node ./bin/www"}, dependencies={"express": "4"}),
                "bin/www": "var port = normalizePort(process.env.PORT || '3000');",
            },
            "express",
            "npm start",
            3000,
        ),
        ({"package.json": EXPRESS, "server.js": "app.listen(4000)"}, "express", "npm start", 4000),
        ({"package.json": EXPRESS, "server.js": "const PORT = process.env.PORT ?? 5001"}, "express", "npm start", 5001),
        (
            {
                "package.json": package(dependencies={"express": "4"}, main="./src/go.js"),
                "src/go.js": "const port = 8081",
            },
            "express",
            "node src/go.js",
            8081,
        ),
        (
            {"package.json": package(scripts={"dev": "nodemon server.js", "start": "node server.js"}), "server.js": ""},
            "node",
            "npm start",
            3000,
        ),
        (
            {
                "package.json": package(scripts={"dev": "tsx src/index.ts"}, devDependencies={"tsx": "4"}),
                "src/index.ts": "app.listen({ port: 4321 })",
            },
            "node",
            "npm run dev",
            4321,
        ),
        (
            {
                "package.json": package(
                    scripts={"start": "node dist/main.js", "build": "tsc"}, dependencies={"koa": "2"}
                )
            },
            "koa",
            "npm run build && npm start",
            3000,
        ),
        (
            {
                "package.json": package(
                    scripts={"start:dev": "nest start --watch", "start": "nest start"},
                    dependencies={"@nestjs/core": "10"},
                )
            },
            "nest",
            "npm run start:dev",
            3000,
        ),
        (
            {"server.js": "require('http').createServer().listen(process.env.PORT || 8088)"},
            "node",
            "node server.js",
            8088,
        ),
        (
            {
                "package.json": package(
                    devDependencies={"vite": "6", "tsx": "4"},
                    dependencies={"express": "4"},
                    scripts={"dev": "tsx server/index.ts"},
                ),
                "server/index.ts": "",
            },
            "express",
            "npm run dev",
            3000,
        ),
    ],
)
def test_node_servers(plan_of: PlanOf, files: dict[str, str], framework: str, start: str, port: int) -> None:
    role, plan = only(plan_of(files))
    assert (role, plan.runtime, plan.framework, plan.start, plan.port) == ("backend", "node20", framework, start, port)


@pytest.mark.parametrize(
    ("lock", "more", "install"),
    [
        ("package-lock.json", {}, "npm ci"),
        ("npm-shrinkwrap.json", {}, "npm ci"),
        ("pnpm-lock.yaml", {}, "pnpm install --frozen-lockfile"),
        ("yarn.lock", {}, "yarn install --frozen-lockfile"),
        (
            "yarn.lock",
            {"packageManager": "yarn@4.1.0"},
            "YARN_NODE_LINKER=node-modules yarn install",
        ),
        ("yarn.lock", {"packageManager": "yarn@1.22.22+sha1.abc"}, "yarn install --frozen-lockfile"),
        ("package-lock.json", {"packageManager": "pnpm@10"}, "pnpm install"),
        ("none", {}, "npm install"),
    ],
)
def test_node_package_managers(plan_of: PlanOf, lock: str, more: dict[str, str], install: str) -> None:
    files = {"package.json": package(scripts={"dev": "vite"}, **more), lock: ""}
    assert only(plan_of(files))[1].install == install


def test_a_server_without_dependencies_installs_nothing(plan_of: PlanOf) -> None:
    plan = only(plan_of({"package.json": package(scripts={"start": "node index.js"}), "index.js": ""}))[1]
    assert (plan.install, plan.start) == (None, "npm start")
