#!/bin/sh
# Brings a bare Debian machine to the point where Python can take over:
# system packages (as root, only the missing ones) and the locked virtual environment.
#   lab/bootstrap.sh requirements/lab.txt
set -eu
cd "$(dirname "$0")/.."
locked=$1
python=/usr/bin/python3
packages="python3-venv python3-dev gcc libc6-dev openssh-client iproute2 iptables nftables debootstrap ca-certificates xz-utils"
case $locked in */dev.txt) packages="$packages redis-server shellcheck nmap chromium" ;; esac

missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "bootstrap: missing:$missing; install them, or run as root on Debian 12" >&2
        exit 1
    fi
    echo "  installing$missing"
    # A daemon that a package would start is not ours to run.
    guard=/usr/sbin/policy-rc.d
    if [ ! -e "$guard" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
        trap 'rm -f "$guard"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # shellcheck disable=SC2086
    apt-get -qq install -y --no-install-recommends $missing >/dev/null
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "bootstrap: $python is older than 3.11; use Debian 12 or newer" >&2; exit 1; }
[ -x .venv/bin/pip ] || "$python" -m venv .venv
echo "  Python packages of $locked (about a minute when new)"
log=$(mktemp)
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r "$locked" >"$log" 2>&1 ||
    { cat "$log" >&2; rm -f "$log"; exit 1; }
rm -f "$log"
