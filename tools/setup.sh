#!/usr/bin/env bash
# Builds .venv with everything that Chalkline and its tests need; at once when nothing has changed.
# PYTHON=... names the interpreter to build from.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/chalkline-setup
wanted() {
    pwd -P
    cat .venv/pyvenv.cfg requirements.txt requirements-cluster.txt requirements-dev.txt tools/setup.sh | cksum
}

if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(wanted)" = "$(cat "$stamp")" ]; then
    exit 0
fi

# An environment holds its own path in every script, so a copied or moved checkout needs a new one.
if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$(pwd -P)" ]; then
    rm -rf .venv
fi

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        found=$("${PYTHON:-python3}" --version 2>&1 || true)
        echo "Chalkline needs Python 3.11 or newer; found: ${found:-none}." \
            "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
    if ! "$python" -m venv --clear .venv; then
        echo "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt

# `from sims import run` must work from any folder.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
pwd -P > "$site/chalkline.pth"

# The browser tests drive a Chromium: the system's own, else its package, else Playwright's download.
system_browser() {
    command -v chromium || command -v chromium-browser || command -v google-chrome
}
install_package() {
    command -v apt-get > /dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        apt-get install -y -qq chromium
    else
        sudo -n apt-get install -y -qq chromium
    fi
}
if ! system_browser > /dev/null \
    && ! { install_package > /dev/null 2>&1 && system_browser > /dev/null; } \
    && ! .venv/bin/python -m playwright install chromium > /dev/null 2>&1; then
    echo "No Chromium found and none could be installed: the browser tests will say that they did not run." \
        "Install one, delete $stamp and run make setup again." >&2
fi

wanted > "$stamp"
echo "Ready: $(.venv/bin/python --version) in .venv"
