#!/usr/bin/env bash
# Installs, from Debian's packages, what the tests need and this machine lacks.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

have_postgres() {
	[[ -x ${PG_BIN:-}/initdb ]] || [[ -x $(pg_config --bindir 2>/dev/null)/initdb ]] ||
		compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

missing=()
have_postgres || missing+=(postgresql)
have kcat || missing+=(kcat)
have gcc || missing+=(gcc libc6-dev) # the race detector links with it
have java || missing+=(default-jdk-headless)
have mvn || missing+=(maven)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
have node && have npm || missing+=(nodejs npm)

if [[ ${#missing[@]} -eq 0 ]]; then
	exit 0
fi
if [[ $EUID -ne 0 ]] || ! have apt-get; then
	echo "The tests need: ${missing[*]} (names of Debian's packages). Install them, or run this as root on Debian." >&2
	exit 1
fi

# The tests start their own servers: no cluster of the system's is wanted.
mkdir -p /etc/postgresql-common
touch /etc/postgresql-common/createcluster.conf
if ! grep -q '^create_main_cluster *= *false' /etc/postgresql-common/createcluster.conf; then
	echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" </dev/null
