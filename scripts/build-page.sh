#!/usr/bin/env bash
# Builds the web client into web/dist when something of it changed since; with `check`, checks its types and runs its
# tests. Without Node 20 it says what is left out, which is a failure with CI set.
set -euo pipefail
cd "$(dirname "$0")/../web"

if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || ! command -v npm >/dev/null; then
    echo "left out: the web client, which needs Node 20 or newer with npm (https://nodejs.org)" >&2
    [ -z "${CI:-}" ]
    exit
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "Installing what the web client is built with"
    npm ci --silent --no-audit --no-fund
    touch node_modules/.package-lock.json
fi
if [ "${1:-}" = check ]; then
    npm run --silent check
elif [ ! -e dist/index.html ] || [ -n "$(find . -newer dist/index.html -type f -not -path './node_modules/*' -not -path './dist/*' -print -quit)" ]; then
    npm run --silent build -- --logLevel warn
    touch dist/index.html
fi
