#!/bin/sh
# Formats the C and C++ sources, or with --check names what is not formatted and fails.
#
# clang-format neither breaks nor joins comment lines here (.clang-format says so, for tables and
# drawings in comments), so lines over 100 characters are looked for apart.
set -eu
cd "$(dirname "$0")/.."

tool=.venv/bin/clang-format
if [ ! -x "$tool" ]; then
    echo "no $tool: run scripts/setup.sh first" >&2
    exit 77
fi
sources=$(find include lib shim cli examples tests -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' |
    LC_ALL=C sort)
if [ "${1:-}" != --check ]; then
    # shellcheck disable=SC2086
    exec "$tool" -i $sources
fi

status=0
# shellcheck disable=SC2086
"$tool" --dry-run -Werror $sources || status=1
# bytes that continue a UTF-8 character do not count
# shellcheck disable=SC2086
LC_ALL=C awk '{ line = $0; gsub(/[\200-\277]/, "", line) }
    length(line) > 100 { printf "%s:%d: %d characters, at most 100\n", FILENAME, FNR, length(line); bad = 1 }
    END { exit bad }' $sources >&2 || status=1
[ "$status" -eq 0 ] || echo "scripts/format.sh formats; long comments are broken by hand" >&2
exit "$status"
