#!/bin/sh
# Fails if a file has outgrown 800 lines or a C function 150. Run from the top of the tree.
set -eu

file_lines_max=800
function_lines_max=150

list() {
    find . -path './.git' -prune -o -path './build*' -prune -o -type f \
        \( -name '*.[ch]' -o -name '*.py' -o -name '*.sh' -o -name '*.cmake' -o -name CMakeLists.txt -o -path ./.ci/run \) -print |
        LC_ALL=C sort
}

count=$(list | wc -l)
if [ "$count" -lt 20 ]; then
    echo "only $count files found: is this the top of the tree?"
    exit 2
fi

wrong=$(
    list | while IFS= read -r file; do
        awk -v file="$file" -v file_max=$file_lines_max -v function_max=$function_lines_max '
            # clang-format puts the braces of a function, and of nothing else, alone into the first column.
            FILENAME ~ /\.[ch]$/ && /^\{$/ { start = NR }
            start && /^\}/ {
                if (NR - start + 1 > function_max)
                    printf "%s:%d: a function of %d lines, more than %d\n", file, start, NR - start + 1, function_max
                start = 0
            }
            END { if (NR > file_max) printf "%s: %d lines, more than %d\n", file, NR, file_max }
        ' "$file"
    done
)
if [ -n "$wrong" ]; then
    echo "$wrong"
    exit 1
fi
