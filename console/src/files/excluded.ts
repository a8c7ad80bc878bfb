/** The same names as the command line leaves out (sandbox/client/packing.py); a test compares the two lists. */
export const EXCLUDED_NAMES: ReadonlySet<string> = new Set(
  `.git .hg .svn .venv venv node_modules __pycache__ .mypy_cache .pytest_cache .ruff_cache .hypothesis .tox .nox .next
   .nuxt .svelte-kit .turbo .parcel-cache .cache .vite .gradle .idea .vscode .DS_Store`.split(/\s+/),
);
