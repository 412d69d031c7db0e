# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts of this directory share: messages, the cache, packages and
# the machine's Debian mirror. Sourced, never executed:
#
#   . "$(dirname "$(readlink -f "$0")")/lib.sh"
#
# Environment:
#   QTFS_CACHE    where everything downloaded or generated lives
#                 (default ~/.cache/qtfs; safe to delete at any time)
#   QTFS_MIRROR   a Debian mirror URL, when apt of this machine knows none
#   QTFS_QUIET    non-empty: no progress messages

QTFS_TOP=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
QTFS_CACHE=${QTFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qtfs}
case $QTFS_CACHE in /*) ;; *) QTFS_CACHE=$PWD/$QTFS_CACHE ;; esac
QTFS_SUITE=trixie
QTFS_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
export QTFS_TOP QTFS_CACHE QTFS_SUITE

# --- Messages: all on stderr, so that stdout carries results only. ---

log() {
	[ -n "${QTFS_QUIET:-}" ] || printf '%s: %s\n' "${0##*/}" "$*" >&2
}

warn() {
	printf '%s: warning: %s\n' "${0##*/}" "$*" >&2
}

# die WHAT [WHY] [WHAT TO DO]: every refusal has all three where they exist.
die() {
	local line
	printf '%s: error: %s\n' "${0##*/}" "$1" >&2
	shift
	for line in "$@"; do
		printf '%s:        %s\n' "${0##*/}" "$line" >&2
	done
	exit 1
}

# progress LOG LABEL CMD...: runs CMD with its output in the file LOG and tells
# every ten seconds how long it has run and what it said last. On a failure it
# shows the end of LOG.
progress() {
	local file=$1 label=$2 pid start=$SECONDS last=$SECONDS rc=0
	shift 2
	log "$label ..."
	# A group of its own, so that an interrupted script leaves nothing running.
	setsid "$@" >"$file" 2>&1 </dev/null &
	pid=$!
	trap 'kill -- "-$pid" 2>/dev/null; exit 130' INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.5
		if [ $((SECONDS - last)) -ge 10 ]; then
			last=$SECONDS
			log "$label: $((SECONDS - start)) s, now:$(tail -n 1 "$file" | tr -d '\r' | tr -s '[:space:]' ' ' | sed 's/^ *\(.\{1,56\}\).*/ \1/')"
		fi
	done
	wait "$pid" || rc=$?
	trap - INT TERM
	if [ "$rc" != 0 ]; then
		tail -n 25 "$file" >&2
		die "$label failed (exit $rc)." "The whole output is in $file."
	fi
	log "$label: done in $((SECONDS - start)) s"
}

# --- The cache. ---

# cache_entry DIR LABEL CMD...: makes sure that DIR is complete, by running
# `CMD... DIR` if it is not. One process builds and others wait for it; an
# interrupted build is thrown away by the next run. The marker is the last
# thing written, so a directory that has it is whole.
cache_entry() {
	local dir=$1 label=$2 lock fd
	shift 2
	[ ! -e "$dir/.complete" ] || return 0
	mkdir -p "$QTFS_CACHE/lock" "$(dirname "$dir")"
	lock=$QTFS_CACHE/lock/$(basename "$(dirname "$dir")")-$(basename "$dir")
	exec {fd}>"$lock"
	if ! flock -n "$fd"; then
		log "waiting for another run that makes $label"
		flock "$fd"
	fi
	if [ ! -e "$dir/.complete" ]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		# In a subshell without the lock's descriptor, so that nothing it
		# leaves running can hold the lock. Not `( ... ) || die`: that
		# would switch off `set -e` inside.
		local rc
		set +e
		(
			exec {fd}>&-
			set -e
			"$@" "$dir"
		)
		rc=$?
		set -e
		[ "$rc" = 0 ] || die "could not make $label." "The messages above say why." \
			"Run the command again; what was half made is thrown away."
		date -u +%FT%TZ >"$dir/.complete"
	fi
	exec {fd}>&-
}

# cache_key TEXT...: a short name for contents that depend on TEXT.
cache_key() {
	printf '%s\n' "$@" | sha256sum | cut -c1-12
}

# --- Packages of this machine. ---

# need_packages PACKAGE...: installs with apt when root; says what to type when not.
need_packages() {
	local package missing=()
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ -n "$(command -v apt-get)" ] || die "this machine lacks: ${missing[*]}." \
		"It has no apt, and the scripts know how to install with apt only." \
		"Install what these Debian packages hold, or use a Debian machine or container."
	[ "$(id -u)" = 0 ] || die "this machine lacks: ${missing[*]}." \
		"Installing needs root." "Run: sudo apt-get install ${missing[*]}"
	mkdir -p "$QTFS_CACHE"
	# shellcheck disable=SC2016
	progress "$QTFS_CACHE/install.log" "installing ${missing[*]}" \
		bash -c 'export DEBIAN_FRONTEND=noninteractive
			install() { apt-get install -y -q --no-install-recommends "$@"; }
			install "$@" || { apt-get update -q && install "$@"; }' - "${missing[@]}"
}

# --- Debian's archive, through the mirror that this machine already uses. ---

# debian_mirror: prints the mirror's URL. apt itself reads its configuration,
# so one-line and deb822 sources, proxies and mirror lists all work.
debian_mirror() {
	local url
	if [ -n "${QTFS_MIRROR:-}" ]; then
		printf '%s\n' "$QTFS_MIRROR"
		return
	fi
	# The first row that says it is Debian's main archive; with no downloaded
	# lists apt does not know the origin, and the suite's name must do.
	# shellcheck disable=SC2016
	url=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(RELEASE)|$(REPO_URI)' \
		'Created-By: Packages' 2>/dev/null | awk -F'|' '
		$1 == "Debian" && $2 == "Debian" { print $4; found = 1; exit }
		$3 ~ /^(bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$/ &&
			$4 !~ /security/ && guess == "" { guess = $4 }
		END { if (!found && guess != "") print guess }')
	[ -n "$url" ] || die "no Debian mirror is known." \
		"apt of this machine has no source with Debian's archive." \
		"Set QTFS_MIRROR to the URL of a Debian mirror (the one with dists/ and pool/)."
	printf '%s\n' "${url%/}"
}

# debian_sources: prints the sources (deb822) of the suites that are built from.
debian_sources() {
	local mirror
	mirror=$(debian_mirror)
	[ -e "$QTFS_KEYRING" ] || need_packages debian-archive-keyring
	printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" \
		"$QTFS_SUITE $QTFS_SUITE-updates $QTFS_SUITE-backports" "$QTFS_KEYRING"
}

# debian_apt apt-get|apt-cache ARG...: apt with a state of its own below the
# cache that knows the build suites; needs no root and leaves the machine's
# apt alone, but inherits its proxies and certificates.
debian_apt() {
	local state=$QTFS_CACHE/apt tool=$1
	shift
	"$tool" -o Dir::Etc::SourceList="$state/debian.sources" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
		-o Dir::State="$state" -o Dir::State::Lists="$state/lists" \
		-o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
		-o APT::Architecture=amd64 -o APT::Architectures=amd64 \
		-o APT::Sandbox::User= -o Acquire::Languages=none -o Debug::NoLocking=1 "$@"
}

# debian_update: fetches the suites' package lists, at most once a day unless
# the argument is "now". Fails, without dying, when the mirror is out of reach,
# and then does not try again for some minutes.
debian_update() {
	local state=$QTFS_CACHE/apt fd rc=0
	mkdir -p "$QTFS_CACHE/lock" "$state/lists/partial" "$state/cache/archives/partial"
	exec {fd}>"$QTFS_CACHE/lock/apt"
	flock "$fd"
	if [ "${1:-}" != now ] && [ -n "$(find "$state/failed" -mmin -10 2>/dev/null)" ]; then
		rc=1
	elif [ "${1:-}" = now ] || [ -z "$(find "$state/fresh" -mtime -1 2>/dev/null)" ]; then
		debian_sources >"$state/debian.sources"
		: >"$state/status"
		log "updating the package lists of $QTFS_SUITE and $QTFS_SUITE-backports"
		if debian_apt apt-get -q -o APT::Update::Error-Mode=any update \
			{fd}>&- >"$state/update.log" 2>&1; then
			touch "$state/fresh"
			rm -f "$state/failed"
		else
			touch "$state/failed"
			rc=1
		fi
	fi
	exec {fd}>&-
	return "$rc"
}
