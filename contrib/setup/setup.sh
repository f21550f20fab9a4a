#!/bin/sh
# Makes a checkout ready to run: Debian packages that are missing, a virtual environment, the project in it (editable).
# Idempotent, and quick when there is nothing to do. Needs root, or sudo, only to install packages.
#
#   contrib/setup/setup.sh [EXTRA…]      extras of the project to install, such as test or dev
set -eu
cd "$(dirname "$0")/../.."

VENV=${AXONEME_VENV:-.venv}
# bcc is not on PyPI: the virtual environment sees Debian's. linux-libc-dev has the headers that programs include.
# curl is what the demo proposes to look around with.
PACKAGES="python3-bpfcc python3-venv linux-libc-dev iproute2 curl ca-certificates"
# What only tests need, as peers that are not ours: one package a line in debian-test.txt, with the reason.
case " $* " in
*" dev "* | *" test "*) PACKAGES="$PACKAGES $(sed 's/#.*//' contrib/setup/debian-test.txt)" ;;
esac

missing=""
for package in $PACKAGES; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
	as_root=""
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || {
			echo "error: these Debian packages are missing:$missing" >&2
			echo "       install them as root, then run this again" >&2
			exit 1
		}
		as_root=sudo
	fi
	echo "installing Debian packages:$missing"
	$as_root apt-get update -qq
	# In run level 1 Debian's packages do not start the services that they bring.
	$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing
fi

extras=$(echo "$*" | tr ' ' ',')
spec=".${extras:+[$extras]}"
stamp="$VENV/.axoneme-$(echo "$spec" | tr -c 'a-z0-9\n' _)"
if [ ! -x "$VENV/bin/python" ]; then
	/usr/bin/python3 -m venv --system-site-packages "$VENV"
fi
# Installed again only when the project's own description changed, or what code is built from.
built_from="pyproject.toml contrib/packaging plugins/*/proto/*.proto"
# shellcheck disable=SC2086 # the pattern is to be expanded
if [ ! -e "$stamp" ] || [ -n "$(find $built_from -newer "$stamp")" ] || [ ! -e .dev/axoneme/core ]; then
	echo "installing axoneme${extras:+ with $extras} into $VENV"
	"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$spec"
	touch "$stamp"
fi
