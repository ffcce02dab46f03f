#!/bin/sh
# Installs what the tests need, builds, and runs every test. The last line counts them.
set -eu

usage() {
    cat <<'TXT'
usage: sh tests/run.sh [--preset NAME] [--only unit|fuzz|integration]... [--jobs N]
  --preset NAME  release (default), debug, asan, tsan or clang
  --only KIND    only these tests; may be given several times
  --jobs N       how many at a time (default 2)
Environment: TASKQ_PYTHONS  the Python interpreters to test with, separated by colons
                            (default: those of pyenv and the python3 on the PATH)
TXT
}

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

preset=release only='' jobs=2
while [ $# -gt 0 ]; do
    case $1 in
    --preset | --only | --jobs)
        if [ $# -lt 2 ]; then
            echo "run.sh: $1 needs a value" >&2
            usage >&2
            exit 2
        fi
        case $1 in
        --preset) preset=$2 ;;
        --only) only="$only $2" ;;
        --jobs) jobs=$2 ;;
        esac
        shift 2
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *)
        echo "run.sh: unknown argument '$1'" >&2
        usage >&2
        exit 2
        ;;
    esac
done
case $preset in
release) build=build ;;
debug | asan | tsan | clang) build=build-$preset ;;
*)
    echo "run.sh: no preset '$preset'; there are release, debug, asan, tsan and clang" >&2
    exit 2
    ;;
esac
for kind in ${only:=unit fuzz integration}; do
    case $kind in
    unit | fuzz | integration) ;;
    *)
        echo "run.sh: --only takes unit, fuzz or integration, not '$kind'" >&2
        exit 2
        ;;
    esac
done

wanted() { # KIND
    case " $only " in
    *" $1 "*) return 0 ;;
    esac
    return 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0 failed=0

# shellcheck disable=SC2086,SC2154 # lists of words from packages.sh
case $preset in
clang) need_packages $build_packages $test_packages $clang_packages ;;
*) need_packages $build_packages $test_packages ;;
esac
# CPython's own tests of queues run against us; Debian keeps them in a package of their own.
if [ -x /usr/bin/python3 ] && ! /usr/bin/python3 -c 'import test.test_queue' 2>/dev/null; then
    need_packages "lib$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite"
fi

echo "== build ($preset, into $build/)"
{ cmake --preset "$preset" -DBUILD_TESTING=ON && cmake --build "$build" -j "$jobs"; } >"$work/build" 2>&1 </dev/null || {
    cat "$work/build"
    echo "0 passed, 1 failed"
    exit 1
}

# ---- unit tests, checks of the tree, and the fuzzers' corpus: ctest ----

run_ctest() { # LABEL
    echo "== $1"
    status=0
    ctest --test-dir "$build" -L "^$1\$" -j "$jobs" --output-on-failure --no-tests=error \
        >"$work/ctest" 2>&1 </dev/null || status=$?
    # "97% tests passed, 1 tests failed out of 34"
    counts=$(sed -n 's/^[0-9]*% tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\1 \2/p' "$work/ctest")
    if [ -z "$counts" ]; then
        cat "$work/ctest"
        echo "-- $1: ctest did not run its tests"
        failed=$((failed + 1))
        return
    fi
    bad=${counts% *} all=${counts#* }
    if [ "$status" -ne 0 ]; then
        cat "$work/ctest"
    fi
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1 all=$((all + 1)) # ctest itself is not content
    fi
    echo "-- $1: $((all - bad)) passed, $bad failed"
    passed=$((passed + all - bad))
    failed=$((failed + bad))
}

# ---- integration tests: each file is a process of its own ----

# One file: its output goes to $work/NAME.log, its counts to $work/NAME.counts.
# shellcheck disable=SC2016 # expanded by the shell that runs it
one_file='
    work=$1 limit=$2 name=$(basename "$3" .py)
    cd tests/integration || exit 0
    before=$(date +%s)
    status=0
    timeout -k 10 "$limit" python3 -m unittest -v "$name" >"$work/$name.log" 2>&1 </dev/null || status=$?
    took=$(($(date +%s) - before))
    # "Ran 12 tests in 3.4s", then "OK" or "FAILED (failures=1, errors=2, skipped=3)"
    ran=$(sed -n "s/^Ran \([0-9]*\) tests* in .*/\1/p" "$work/$name.log" | tail -n 1)
    bad=$(grep -E "^(OK|FAILED)( [(]|\$)" "$work/$name.log" | tail -n 1 | tr -c "0-9a-z=\n" " " |
        awk "{ for (i = 1; i <= NF; i++) if (split(\$i, f, \"=\") == 2) n += f[2] } END { print n + 0 }")
    if [ -z "$ran" ] || [ "$ran" -eq 0 ]; then # it did not get to its end, or holds no test
        ran=1 bad=1
    elif [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
    fi
    [ "$bad" -le "$ran" ] || bad=$ran # a test may fail in several of its parts
    echo "$((ran - bad)) $bad" >"$work/$name.counts"
    if [ "$bad" -eq 0 ]; then
        echo "   $name: $ran passed, $took s"
    else
        [ "$status" -ne 124 ] || echo "$name: stopped after its $limit seconds" >>"$work/$name.log"
        { cat "$work/$name.log"; echo "   $name: $((ran - bad)) passed, $bad FAILED, $took s"; }
    fi
'

run_integration() {
    echo "== integration"
    limit=600
    case $preset in
    asan | tsan) limit=1200 ;;
    esac
    for file in tests/integration/test_*.py; do
        [ ! -f "$file" ] || printf '%s\n' "$file"
    done >"$work/files"
    if [ ! -s "$work/files" ]; then
        echo "-- integration: no tests found"
        failed=$((failed + 1))
        return
    fi
    TASKQ_BUILD=$top/$build xargs -P "$jobs" -n 1 sh -c "$one_file" sh "$work" "$limit" <"$work/files"
    good=0 bad=0
    while IFS= read -r file; do
        counts="$work/$(basename "$file" .py).counts"
        if [ -s "$counts" ]; then
            read -r g b <"$counts"
        else
            g=0 b=1
        fi
        good=$((good + g)) bad=$((bad + b))
    done <"$work/files"
    echo "-- integration: $good passed, $bad failed"
    passed=$((passed + good))
    failed=$((failed + bad))
}

if wanted unit; then run_ctest unit; fi
if wanted fuzz; then run_ctest fuzz; fi
if wanted integration; then run_integration; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
