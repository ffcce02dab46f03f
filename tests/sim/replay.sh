#!/bin/sh
# The same seed is the same run: two processes write the same history, byte for byte.
# usage: replay.sh [--durable] TEST_SIM SEED...
set -eu

mode=
if [ "$1" = --durable ]; then
    mode=$1
    shift
fi

sim=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wrong=0
for seed in "$@"; do
    # shellcheck disable=SC2086 # a word or none
    "$sim" $mode --trace --seed "$seed" >"$work/one"
    # shellcheck disable=SC2086
    "$sim" $mode --trace --seed "$seed" >"$work/two"
    lines=$(wc -l <"$work/one")
    if ! cmp "$work/one" "$work/two"; then
        echo "seed $seed has two histories"
        wrong=1
    elif [ "$lines" -lt 500 ]; then
        echo "seed $seed has a history of $lines lines: does it show anything?"
        wrong=1
    fi
done
exit $wrong
