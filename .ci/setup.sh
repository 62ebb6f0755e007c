#!/usr/bin/env bash
# All the set-up there is, for people and for CI alike. Every step may be repeated; one that has
# nothing to do takes milliseconds.
#
#   setup.sh machine   programs of the practice fleet, from the distribution's packages
#   setup.sh python    .venv with the locked dependencies and cloudai itself
#   setup.sh lock      writes constraints.txt anew
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
VENV=.venv
LOCK=constraints.txt
RIVALS=build/rivals

fail() {
  echo "setup: $*" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

is_root() {
  [ "$(id -u)" = 0 ]
}

install_packages() {
  is_root && have apt-get || fail "missing here: $*. Install these packages and try again (on Debian and Ubuntu: sudo apt-get install $*)"
  echo "setup: installing $*"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install)
  "${apt[@]}" "$@" </dev/null >/dev/null 2>&1 && return
  apt-get -q update </dev/null || fail "apt-get update does not work here"
  "${apt[@]}" "$@" </dev/null || fail "apt-get could not install: $*"
}

# ------------------------------------------------------------------ the practice fleet's needs

has_static_busybox() {
  # A dynamic one names its loader near its start, and would not run in an empty image.
  have busybox && ! head -c 4096 "$(command -v busybox)" | grep -q /ld-
}

missing_packages() {
  have dockerd || echo docker.io
  have docker || echo "$(docker_cli)"
  have sshd || echo openssh-server
  have ssh && have ssh-keygen || echo openssh-client
  has_static_busybox || echo busybox-static
  have ip || echo iproute2
  have iptables || echo iptables
  # Login shells that a worker may have; the tests log in through them.
  have fish || echo fish
  have csh || echo csh
  have zsh || echo zsh
  if [ "${MAKE_GOAL:-}" = bench ]; then
    # What people use today.
    have rsync || echo rsync
    have parallel || echo parallel
    have pdsh || echo pdsh
  fi
  if [ "${MAKE_GOAL:-}" = test ] || [ "${MAKE_GOAL:-}" = chaos ]; then
    # A private one, and pulls that are cut.
    have docker-registry || echo docker-registry
  fi
  if [ "${MAKE_GOAL:-}" = chaos ]; then
    # A laptop whose clock is wrong.
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime
  fi
}

docker_cli() {
  # A package of its own in newer releases.
  if have apt-cache && apt-cache show docker-cli >/dev/null 2>&1; then
    echo docker-cli
  else
    echo docker.io
  fi
}

set_up_machine() {
  [ "$(uname -s)" = Linux ] || fail "the practice fleet needs Linux; here: make lint, and .venv/bin/pytest tests/unit"
  is_root || fail "the practice fleet needs root for its Docker engines: sudo make ${MAKE_GOAL:-test} (without it: make lint, and .venv/bin/pytest tests/unit)"
  local missing
  # docker.io may bring the docker command along, or not: so look twice.
  for _ in 1 2; do
    missing=$(missing_packages | sort -u)
    # shellcheck disable=SC2086  # package names, one a word
    [ -z "$missing" ] || install_packages $missing
  done
  missing=$(missing_packages | sort -u)
  [ -z "$missing" ] || fail "still missing after installing them: "$missing
}

# ------------------------------------------------------------------ Python

set_up_rivals() {
  # What the bench compares with that is Python: apart, for its needs are not ours.
  [ "${MAKE_GOAL:-}" = bench ] || return 0
  local wanted
  wanted=$(cksum <tests/bench/rivals.txt)
  [ "$(cat "$RIVALS/.ready" 2>/dev/null)" != "$wanted" ] || return 0
  echo "setup: installing what the bench compares with into $RIVALS"
  "$VENV/bin/python" -m venv --clear "$RIVALS"
  "$RIVALS/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r tests/bench/rivals.txt
  echo "$wanted" >"$RIVALS/.ready"
}

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if have "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "Python 3.11 or newer is needed"
}

make_venv() {
  local python=$1 version
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    install_packages "python$version-venv"
  fi
  "$python" -m venv --clear "$VENV"
}

set_up_python() {
  local wanted
  wanted=$(cat "$LOCK" pyproject.toml "$0" | cksum)
  if [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.ready" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  echo "setup: installing cloudai and what it needs into $VENV (a minute or two)"
  "$VENV/bin/python" -c 'import pip' 2>/dev/null || make_venv "$(find_python)"
  local pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input)
  "${pip[@]}" --require-hashes -r "$LOCK"
  "${pip[@]}" --no-deps --no-build-isolation --editable .
  echo "$wanted" >"$VENV/.ready"
}

write_lock() {
  [ -x "$VENV/lock/bin/pip-compile" ] || {
    "$(find_python)" -m venv "$VENV/lock"
    "$VENV/lock/bin/pip" install --quiet --disable-pip-version-check pip-tools
  }
  local fresh=$VENV/lock/$LOCK
  # Names, versions, hashes; where to download from is each machine's own setting.
  "$VENV/lock/bin/pip-compile" --quiet --upgrade --all-extras --strip-extras --allow-unsafe \
    --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --output-file "$fresh" pyproject.toml
  {
    printf "%s\n" "# The exact versions that everything is built and tested with: pip install -r constraints.txt" "# Written by \`make lock\`."
    grep -v '^#' "$fresh" | sed '/^$/d'
  } >"$LOCK"
}

case ${1:-} in
  machine) set_up_machine ;;
  python) set_up_python && set_up_rivals ;;
  lock) write_lock ;;
  *) fail "say machine, python or lock" ;;
esac
