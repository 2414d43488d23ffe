#!/bin/sh
# Installs what building and testing need: system packages (as root on Debian or Ubuntu) and a Python
# environment in .venv with pinned versions. Does nothing where everything is there.
set -eu
cd "$(dirname "$0")/.."

packages="build-essential cmake ninja-build pkg-config python3 python3-venv
libpng-dev libjpeg62-turbo-dev zlib1g-dev libjansson-dev libssl-dev libcmocka-dev
openmpi-bin libopenmpi-dev"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "as root, install these packages first: apt-get install -y$missing" >&2
        exit 1
    fi
    echo "installing system packages:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

want=$(sha256sum requirements.txt | cut -d' ' -f1)
if [ "$(cat .venv/requirements.sha256 2>/dev/null || true)" != "$want" ]; then
    echo "making the Python environment in .venv (a few minutes, 5 GB)"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    echo "$want" > .venv/requirements.sha256
fi
