# Sourced by the other scripts, not run. `make_environment DIR LOCK` makes a virtual environment that holds what
# requirements/LOCK.lock lists, checked against its hashes, and this project itself; it returns at once when that has
# been done. Two at a time wait for each other.

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed" >&2
    return 1
}

make_environment() {
    (
        if command -v flock >/dev/null; then
            flock 9
        fi
        install_environment "$@" 9>&-
    ) 9>"$1.lock"
}

# Which lock the given flags of scripts/up need. The real model needs torch and more; once that is installed it stays:
# the demo voice runs there too.
lock_for() {
    local lock=serve
    case " $* " in
        *" --engine chatterbox "* | *" --engine=chatterbox "*) lock=chatterbox ;;
        *" --engine "* | *" --engine="*) ;;
        *" --checkpoint"*) lock=chatterbox ;;
    esac
    if [ "${CHATTERBOX_ENGINE:-}" = chatterbox ] || grep -q '^chatterbox ' .venv/.complete 2>/dev/null; then
        lock=chatterbox
    fi
    echo "$lock"
}

install_environment() {
    local directory=$1 lock=$2 wanted python
    python=$(find_python) || return 1
    wanted="$lock $(cat "requirements/$lock.lock" requirements/bootstrap.lock pyproject.toml | cksum) $PWD"
    if [ "$(cat "$directory/.complete" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    echo "installing into $directory" >&2
    rm -f "$directory/.complete"
    if ! "$directory/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$directory"
        if ! "$python" -m venv "$directory" >&2; then
            echo "error: $python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
            return 1
        fi
    fi
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements/bootstrap.lock >&2 || return 1
    # Compiled beforehand, what serves starts faster; of the tests' many packages most files are never imported.
    local compile=--no-compile-bytecode
    [ "$lock" = dev ] || compile=--compile-bytecode
    VIRTUAL_ENV="$PWD/$directory" "$directory/bin/uv" pip install --quiet $compile --no-deps --require-hashes \
        -r "requirements/$lock.lock" >&2 || return 1
    VIRTUAL_ENV="$PWD/$directory" "$directory/bin/uv" pip install --quiet --no-deps --editable . >&2 || return 1
    echo "$wanted" >"$directory/.complete"
}

# Builds the web page into webui/dist, where its sources are there and are not those it was built from. The fleet runs
# without it, too: what is missing is said, and nothing fails.
build_page() {
    if [ ! -f webui/package.json ] || [ ! -w webui ]; then
        return 0
    fi
    (
        if command -v flock >/dev/null; then
            flock 9
        fi
        build_page_if_changed 9>&-
    ) 9>webui/.lock
}

build_page_if_changed() {
    local wanted log
    wanted=$(page_sources)
    if [ -f webui/dist/index.html ] && [ "$(cat webui/.built 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
        echo "note: the web page is not built: it takes Node 20.19 or 22.12 or newer, and $(node_found)" >&2
        return 0
    fi
    if ! command -v npm >/dev/null; then
        echo "note: the web page is not built: it takes npm, which is not installed" >&2
        return 0
    fi
    echo "building the web page" >&2
    log=$(mktemp)
    if (cd webui && npm ci --no-audit --no-fund --fetch-retries=1 && npm run build) >"$log" 2>&1; then
        echo "$wanted" >webui/.built
    else
        echo "note: the web page is not built; npm said:" >&2
        tail -n 5 "$log" | sed 's/^/  /' >&2
    fi
    rm -f "$log"
}

node_found() {
    local version
    version=$(node --version 2>/dev/null) && echo "$version is installed" || echo "none is installed"
}

# One line for all that the page is made from.
page_sources() {
    find webui -type d \( -name node_modules -o -name dist -o -name artefacts \) -prune -o \
        -type f ! -name .built ! -name .lock -print0 | LC_ALL=C sort -z | xargs -0 cksum | cksum
}
