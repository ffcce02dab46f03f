#!/bin/sh
# What the source has and the documents leave out: policies of queues, options of a put, requests, codes of errors,
# limits, log lines; and what documents point at and is not there. usage, from the top of the tree: docs.sh
set -eu

manual=docs/queues.md
protocol=proto/PROTOCOL.md
wrong=0
anchors=$(mktemp)
trap 'rm -f "$anchors"' EXIT

# demand WHAT LEAST FILE WORDS: each of the words stands in the file as `word`; there are at least so many.
demand() {
    what=$1 least=$2 file=$3
    shift 3
    if [ $# -lt "$least" ]; then
        echo "docs.sh finds only $# $what in the source: has it been rewritten?"
        exit 2
    fi
    for word in "$@"; do
        if ! grep -qF "\`$word\`" "$file"; then
            echo "$file says nothing of the $what \`$word\`"
            wrong=1
        fi
    done
}

policies=$(sed -n '/^static const struct setting settings/,/^};/p' master/config_queue.c |
    sed -nE 's/^ *(OTHER|NUMBER|FLAG|MS)\(([a-z_]*).*/\2/p; s/^ *\{"([a-z_]*)".*/\1/p')
declared=$(sed -nE '/policy_list\[\] = \{/,/^\};/s/.*(WORD|SMALL|ATTEMPT|policies,)[ (]*([a-z_]*).*/\2/p' master/native/policy_fields.c |
    grep -vxE 'q|update')
options=$(sed -nE '/option_list\[\] = \{/,/^\};/s/.*option_fields, ([a-z_]*).*/\1/p' master/native/put.c)
requests=$(sed -n '/^} methods\[\] = {/,/^};/p' master/native/conn.c | grep -oE 'METHOD\("[a-z]*' | sed 's/.*"//')
codes=$(sed -n '/native_code_names\[.*= {/,/^};/p' master/native/out.c | sed -n 's/.*"\([a-z_]*\)".*/\1/p')
limits=$(sed -nE 's/^ *X\([a-z_]*, "([a-z-]*)".*/--\1/p' master/limits_list.h | grep -vxE -e '--(drain-timeout|stop-timeout|backup-timeout|log-.*)')
# shellcheck disable=SC2046,SC2086 # words
{
    demand policy 20 $manual $policies
    demand policy 18 $manual $declared
    demand policy 18 $protocol $declared
    demand "option of a put" 7 $manual $(echo $options | sed 's/\btrace\b//')
    demand "option of a put" 8 $protocol $options
    demand request 20 $protocol $requests
    demand code 15 $protocol $codes
    demand limit 20 $protocol $limits
    demand "log line" 40 docs/operations.md $(cat master/*.c master/*/*.c worker/*.c worker/*/*.c | tr '\n' ' ' |
        grep -oE '(tq_log|native_log)\([^;"]*"[A-Z][A-Z-]+"' | grep -oE '[A-Z-]+"$' | tr -d '"' | LC_ALL=C sort -u)
}

# Files that documents name.
for file in README.md docs/*.md $protocol; do
    # shellcheck disable=SC2016 # backquotes, as Markdown has them
    for named in $(grep -oE '`(docs|proto|deploy|tests|common|master|worker|client)/[A-Za-z0-9_./-]*`' "$file" | tr -d '`' | LC_ALL=C sort -u); do
        if [ ! -e "$named" ]; then
            echo "$file names $named, which is not there"
            wrong=1
        fi
    done
    # shellcheck disable=SC2016
    for named in $(grep -oE '`[a-zA-Z]+\.md`' "$file" | tr -d '`' | LC_ALL=C sort -u); do
        if [ ! -e "docs/$named" ] && [ ! -e "proto/$named" ] && [ ! -e "$named" ]; then
            echo "$file names $named, which is not there"
            wrong=1
        fi
    done
done

# Headlines that a page links to.
for file in docs/*.md; do
    sed -n 's/.*](#\([a-z-]*\)).*/\1/p' "$file" >"$anchors"
    while IFS= read -r anchor; do
        if ! sed -n 's/^##* //p' "$file" | tr 'A-Z ' 'a-z-' | grep -qx -e "$anchor"; then
            echo "$file links to #$anchor, a headline that it does not have"
            wrong=1
        fi
    done <"$anchors"
done
exit $wrong
