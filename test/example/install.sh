#!/bin/sh
# Goal: what is installed can be compiled against, linked shared and static, and found by pkg-config.
# Method: install.sh MESON BUILD_DIRECTORY PREFIX README CC... installs into a directory of its own, compiles the README's
#         program with the flags that pkg-config gives, and runs it.
set -u
. "$(dirname "$0")/../lib/results.sh"
meson=$1 build=$2 prefix=$3 readme=$4
shift 4
directory=$(mktemp -d) || exit 1
log=$directory/log
trap 'rm -rf "$directory"' EXIT

"$meson" install -C "$build" --no-rebuild --destdir "$directory/root" >"$log" 2>&1
result $? "meson install"
there=$directory/root$prefix
description=$(find "$there" -name quire.pc)
[ -n "$description" ]
result $? "quire.pc is not installed"
library=$(dirname "$(dirname "$description")")
PKG_CONFIG_PATH=$(dirname "$description")
export PKG_CONFIG_PATH
flags() {
    pkg-config --define-variable=prefix="$there" "$@" quire
}

[ "$(find "$there" -type f -name '*.h')" = "$there/include/quire/quire.h" ]
result $? "other headers than quire.h are installed: $(find "$there" -name '*.h')"
[ -e "$library/libquire.so.0" ] && [ -f "$library/libquire.a" ] &&
    [ -z "$(find "$there" -name '*testing*' -o -name '*common*')" ]
result $? "not the right libraries are installed: $(find "$there" -name '*.so*' -o -name '*.a')"

LD_LIBRARY_PATH=$library "$there/bin/quire" --version >"$log" 2>&1
result $? "running the installed tool"
[ -f "$there/share/man/man1/quire.1" ] || [ -f "$there/share/man/man1/quire.1.gz" ]
result $? "the man page is not installed"

awk '/^```c$/ { inside = 1; next } /^```$/ && inside { exit } inside' "$readme" >"$directory/program.c"
# shellcheck disable=SC2046
"$@" -o "$directory/shared" "$directory/program.c" $(flags --cflags --libs) >"$log" 2>&1
result $? "compiling with the shared library"
(cd "$directory" && LD_LIBRARY_PATH=$library ./shared) >"$log" 2>&1
result $? "running with the shared library"

# The linker takes the static library if it finds no shared one.
rm -f "$library"/libquire.so*
# shellcheck disable=SC2046
"$@" -o "$directory/static" "$directory/program.c" $(flags --static --cflags --libs) >"$log" 2>&1
result $? "compiling with the static library"
(cd "$directory" && ./static) >"$log" 2>&1
result $? "running with the static library"
finish
