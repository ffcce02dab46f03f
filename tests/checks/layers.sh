#!/bin/sh
# Tries the includes that a target may use and those that it must not: the former build, the latter do not.
# usage, from the top of the tree: layers.sh COMPILER TARGET INCLUDE_DIRS   (separated by semicolons)
set -eu

compiler=$1 target=$2 dirs=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The first header of a folder, so that the check does not depend on one name.
header_of() {
    for file in "$1"/*.h; do
        if [ -f "$file" ]; then
            echo "$file"
            return
        fi
    done
    echo "layers.sh: no header in $1/, what should $target be tried with?" >&2
    exit 1
}

common=common/buf.h
proto=proto/frame.h
core=master/core/broker.h
native=master/native/native.h
log=master/log/log.h
store=master/store/store.h
master=$(header_of master)
worker=$(header_of worker)
client=client/ctl/link.h
system='time.h unistd.h sys/socket.h fcntl.h poll.h'
harmless='stdint.h stdio.h stdlib.h string.h'

case $target in
tq_common) may="$common time.h unistd.h" must_not="uv.h $proto $core $master $worker" ;;
tq_proto) may="$common $proto proto/python/pickle.h uthash.h" must_not="uv.h $system $core $master $worker" ;;
tq_core) may="$common $core uthash.h" must_not="uv.h $system $proto $native $master $worker" ;;
tq_native)
    may="$common $proto $core $native master/endpoint.h"
    must_not="uv.h $system master/server.h master/python/registry.h $worker"
    ;;
tq_log) may="$common $log isa-l/crc.h" must_not="uv.h $system $proto $core $native $store $worker" ;;
tq_store)
    may="$common $proto $core $native $log $store master/endpoint.h"
    must_not="uv.h $system master/server.h master/disk/fs_posix.h $worker"
    ;;
tq_master) may="$common $proto $core $native $log $store $master uv.h unistd.h" must_not="$worker $client" ;;
tq_worker) may="$common $proto $worker uv.h unistd.h" must_not="$core $master $client" ;;
tq_ctl) may="$common $proto $client jansson.h unistd.h poll.h" must_not="uv.h $core $log $master $worker" ;;
*)
    echo "layers.sh: unknown target $target" >&2
    exit 2
    ;;
esac

include_flags() {
    echo "$dirs" | tr ';' '\n' | while IFS= read -r dir; do
        [ -z "$dir" ] || printf -- '-I%s\n' "$dir"
    done
}

builds() { # HEADER
    printf '#include <%s>\nint nothing_else;\n' "$1" >"$work/try.c"
    # shellcheck disable=SC2046 # one word for each folder; the tree's own path must not hold blanks
    "$compiler" -std=gnu11 -D_GNU_SOURCE -fsyntax-only $(include_flags) "$work/try.c" 2>"$work/messages"
}

wrong=0
for header in $may $harmless; do
    if ! builds "$header"; then
        echo "$target should be able to include $header:"
        cat "$work/messages"
        wrong=1
    fi
done
for header in $must_not; do
    case $header in
    */*.h) ours=$header ;;
    *) ours= ;;
    esac
    case $header in sys/*) ours= ;; esac
    if [ -n "$ours" ] && [ ! -f "$ours" ]; then
        echo "$header does not exist: trying it proves nothing"
        wrong=1
    elif builds "$header"; then
        echo "$target includes $header and that builds, which it must not"
        wrong=1
    fi
done

# A path through the parent folder would go round the views.
if grep -rnE --include='*.[ch]' '#[[:space:]]*include[[:space:]]*[<"][^>"]*\.\./' common proto master worker client; then
    echo "includes are written from the top of the tree, never through .."
    wrong=1
fi
exit $wrong
