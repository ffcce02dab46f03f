#!/bin/sh
# Builds the crash simulator of the log with each of the mistakes in log_mutations.txt and runs it: each has to
# be found. A mutation there is edits of files; each edit is a run of - lines (which stand there once), then of
# + lines.
# usage, from the top of the tree: mutate_log.sh [--jobs N] [--seeds N] [NAME-PART]
# The last line counts them. Environment: CC
set -eu

jobs=2 seeds=1500 part=''
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
libs='-lisal -lcrypto'
export libs

mkdir "$work/o"
# shellcheck disable=SC2016 # expanded by the inner shell
find common master/log tests/lib/fake_fs.c tests/lib/fake_crash.c tests/unit/test_log_crash.c -name '*.c' -print0 |
    xargs -0 -P "$jobs" -n 1 sh -c '$CC $flags -c "$1" -o "$work/o/$(echo "$1" | tr / _).o"' sh
# shellcheck disable=SC2086 # words
$CC $flags -o "$work/plain" "$work"/o/*.o $libs
"$work/plain" --seeds 1 20 >"$work/out" 2>&1 || {
    cat "$work/out"
    echo "the simulation fails without any mutation"
    exit 1
}

# Each mutation becomes a folder with its name, the changed files, and nothing else.
python3 - "$work" "$part" tests/sim/log_mutations.txt <<'PY'
import os, sys
work, part, table = sys.argv[1:]
mutations, path, last = [], None, None
for line in open(table):
    line = line.rstrip("\n")
    if line.startswith("@ "):
        mutations.append((line[2:], []))
    elif line.startswith("& "):
        path, last = line[2:], None
    elif line[:1] in ("-", "+"):
        if line[0] == "-" and last != "-":
            mutations[-1][1].append((path, [], []))
        last = line[0]
        mutations[-1][1][-1][1 if last == "-" else 2].append(line[2:])
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
    timeout 120 ./sim --seeds 1 "$seeds" >log 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        echo missed >result
    else
        echo found >result
    fi
    printf "%-8s%s: %s\n" "$(cat result)" "$(cat name)" "$(grep -a -v "^again" log | tail -n 1 | cut -c 1-150)"
    rm -rf o sim
'
for m in "$work"/m[0-9]*; do echo "$m"; done | xargs -P "$jobs" -I{} sh -c "$one" sh {} "$(pwd)"
found=$(cat "$work"/m*/result | grep -c '^found$' || true)
all=$(find "$work" -name name | wc -l)
echo "$found of $all mutations found"
[ "$all" -gt 0 ] && [ "$found" -eq "$all" ]
