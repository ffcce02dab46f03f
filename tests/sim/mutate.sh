#!/bin/sh
# Builds the simulation with each of the mistakes in mutations.txt and runs it: each has to be found; those
# whose name begins with "durable:" with a log underneath. Without the broker's own check: what comes out of
# the master alone has to give it away.
# usage, from the top of the tree: mutate.sh [--jobs N] [--seeds N] [NAME-PART]
# The last line counts them. Environment: CC
set -eu

jobs=2 seeds=1000 part=''
while [ $# -gt 0 ]; do
    case $1 in
    --jobs) jobs=$2 && shift 2 ;;
    --seeds) seeds=$2 && shift 2 ;;
    *) part=$1 && shift ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export work seeds CC="${CC:-gcc}"
export flags="-std=gnu11 -D_GNU_SOURCE -O1 -I."
libs='-lcrypto -luv -lisal'
export libs

objects() { # DIRECTORY < files: compiled there, each under its path with _ for /
    # shellcheck disable=SC2016 # expanded by the inner shell
    xargs -P "$jobs" -n 1 sh -c '$CC $flags -c "$2" -o "$1/$(echo "$2" | tr / _).o"' sh "$1"
}

mkdir "$work/o"
find tests/sim common master/core master/native master/log master/store proto tests/lib/mptext.c \
    tests/lib/fake_fs.c tests/lib/fake_crash.c -name '*.c' | objects "$work/o"
# shellcheck disable=SC2086 # words
$CC $flags -o "$work/plain" "$work"/o/*.o $libs
{ "$work/plain" --seeds 1 20 && "$work/plain" --durable --seeds 1 20; } >"$work/out" 2>&1 || {
    cat "$work/out"
    echo "the simulation fails without any mutation"
    exit 1
}

# Each mutation becomes a folder with its name, the changed files, and nothing else.
python3 - "$work" "$part" tests/sim/mutations.txt <<'PY'
import os, sys
work, part, table = sys.argv[1:]
mutations, edit = [], None
for line in open(table):
    line = line.rstrip("\n")
    if line.startswith("@ "):
        mutations.append((line[2:], []))
    elif line.startswith("& "):
        edit = (line[2:], [], [])
        mutations[-1][1].append(edit)
    elif line.startswith("-"):
        edit[1].append(line[2:])
    elif line.startswith("+"):
        edit[2].append(line[2:])
bad = 0
for i, (name, edits) in enumerate(m for m in mutations if part in m[0]):
    folder = "%s/m%03d" % (work, i)
    os.makedirs(folder)
    open(folder + "/name", "w").write(name)
    texts = {}
    for path, old, new in edits:
        text = texts.get(path) or open(path).read()
        if text.count("\n".join(old)) != 1:
            print("%s: the text stands %d times in %s" % (name, text.count("\n".join(old)), path))
            bad += 1
        texts[path] = text.replace("\n".join(old), "\n".join(new))
    for path, text in texts.items():
        open("%s/%s" % (folder, path.replace("/", "_")), "w").write(text)
sys.exit(bad > 0)
PY

# shellcheck disable=SC2016 # expanded by the shell that runs it
one='
    cd "$1"
    mkdir o
    for o in "$work"/o/*.o; do ln -s "$o" o/; done
    top=$2
    for c in *.c; do
        rm "o/$c.o"
        (cd "$top" && $CC $flags -w -c "$1/$c" -o "$1/o/$c.o") >log 2>&1 || { echo "not built" >result; cat log; exit 0; }
    done
    $CC -o sim o/*.o $libs
    status=0
    mode=
    case $(cat name) in durable:*) mode=--durable ;; esac
    timeout 120 ./sim $mode --no-check --seeds 1 "$seeds" >log 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        echo missed >result
    else
        echo found >result
    fi
    printf "%-8s%s: %s\n" "$(cat result)" "$(cat name)" "$(grep -a -v "whole history" log | tail -n 1 | cut -c 1-110)"
    rm -rf o sim
'
for m in "$work"/m[0-9]*; do echo "$m"; done | xargs -P "$jobs" -I{} sh -c "$one" sh {} "$(pwd)"
found=$(cat "$work"/m*/result | grep -c '^found$' || true)
all=$(find "$work" -name name | wc -l)
echo "$found of $all mutations found"
[ "$all" -gt 0 ] && [ "$found" -eq "$all" ]
