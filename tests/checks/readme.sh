#!/bin/sh
# Every option of the programs, and every command of task-ctl, is in docs/options.md, and every option that the
# documents name is one that the programs have. usage, from the top of the tree: readme.sh TASK-MASTER TASK-WORKER TASK-CTL
set -eu

options=docs/options.md
documents="README.md CHANGELOG.md proto/PROTOCOL.md"
for file in docs/*.md; do documents="$documents $file"; done
master=$("$1" --help)
worker=$("$2" --help)
ctl=$("$3" --help)
commands=$(printf '%s\n' "$ctl" | sed -n '/^Commands:/,/^$/{s/^  \([a-z]\)/\1/;s/  .*//;s/ [A-Z[].*//;/^[a-z]/p;}')
# shellcheck disable=SC2086 # one word or two
ctl=$ctl$(printf '%s\n' "$commands" | while IFS= read -r command; do "$3" help $command; done)
wrong=0

# names_of: options in the text on stdin.
names_of() { grep -o -e '--[a-z][a-z0-9-]*' | LC_ALL=C sort -u; }
# of_help TEXT: those that a help text explains.
of_help() { printf '%s\n' "$1" | sed -n 's/^  \(--[a-z][a-z0-9-]*\).*/\1/p' | LC_ALL=C sort -u; }
# section NAME: of options.md, up to the next headline.
section() { sed -n "/^## $1\$/,/^## /p" "$options"; }

for program in master worker ctl; do
    case $program in
    master) help=$master ;;
    worker) help=$worker ;;
    ctl) help=$ctl ;;
    esac
    explained=$(section "task-$program" | names_of)
    for option in $(of_help "$help"); do
        case $option in --help | --version) continue ;; esac
        if ! printf '%s\n' "$explained" | grep -qx -e "$option"; then
            echo "$options says nothing of $option of task-$program"
            wrong=1
        fi
    done
done
printf '%s\n' "$commands" | while IFS= read -r command; do
    if ! section task-ctl | grep -qE -e "^\| \`$command( |\`)"; then
        echo "$options says nothing of the command $command of task-ctl"
        exit 1
    fi
done || wrong=1

for file in $documents; do
    # Those of cmake and systemctl are not meant, nor one of the example's own.
    named=$(names_of <"$file" | grep -vxE -e '--(preset|build|install|now|work)') || continue
    for option in $named; do
        if ! printf '%s\n%s\n%s\n' "$master" "$worker" "$ctl" | grep -qE -e "^  $option( |\$)"; then
            echo "$file names $option, which no program has"
            wrong=1
        fi
    done
done

if [ "$(of_help "$master" | wc -l)" -lt 20 ] || [ "$(printf '%s\n' "$commands" | wc -l)" -lt 7 ] || [ "$(names_of <README.md | wc -l)" -lt 10 ]; then
    echo "hardly any option found: is this the top of the tree?"
    exit 2
fi
exit $wrong
