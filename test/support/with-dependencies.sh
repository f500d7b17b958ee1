#!/bin/sh
# Runs a command of this checkout on the pinned Node, installing the locked dependencies first when they are missing
# or older than the lock file. So `npm test`, `npm run demo` and `npm run bench` work on a fresh clone.
set -e
top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$top"
stamp=node_modules/.package-lock.json
if [ ! -x node_modules/node/bin/node ] || [ ! -e "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  echo 'installing the locked dependencies (npm ci) …' >&2
  npm ci --no-audit --no-fund >&2
  touch "$stamp"
fi
PATH="$top/node_modules/node/bin:$PATH"
export PATH
exec "$@"
