#!/bin/sh
# Every option that the README names is one that the programs have.
# usage, from the top of the tree: readme.sh TASK-MASTER TASK-WORKER
set -eu

help=$("$1" --help && "$2" --help)
# Those of cmake and of head, and the two that every program has, are not meant.
named=$(grep -o -e '--[a-z][a-z0-9-]*' README.md | grep -vxE -e '--(preset|build|install)' | LC_ALL=C sort -u)
if [ "$(echo "$named" | wc -l)" -lt 10 ]; then
    echo "README.md names hardly any option: is this the top of the tree?"
    exit 2
fi
wrong=0
for option in $named; do
    if ! printf '%s\n' "$help" | grep -qE -e "^  $option( |\$)"; then
        echo "README.md names $option, which neither program has"
        wrong=1
    fi
done
exit $wrong
