#!/bin/sh
# Refreshes every lock from its .in file, hashes included. Needs `uv`.
set -eu
cd "$(dirname "$0")"
command -v uv >/dev/null || { echo "lock: uv is missing; install it: pipx install uv" >&2; exit 1; }
lock() { uv pip compile -q -U --generate-hashes --python-version 3.11 --no-header -o "$@"; }
lock dev.txt dev.in
# The others follow dev.txt, so that what is tested is what runs.
for name in node operator lab; do lock "$name.txt" -c dev.txt "$name.in"; done
lock ../app/requirements.txt -c dev.txt ../app/requirements.in
