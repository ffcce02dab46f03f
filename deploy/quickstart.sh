#!/bin/sh
# Installs what is missing, builds, and runs the example: ten numbers go to workers, ten squares come back.
# First our master with our worker; then, if there is a Python, our master with Python's own worker.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

work=$(mktemp -d)
running='' # pids of what we started
clean_up() {
    for pid in $running; do
        kill "$pid" 2>/dev/null || :
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck disable=SC2086,SC2154 # a list of words from packages.sh
need_packages $build_packages
echo "Building into $top/build/ ..."
{ cmake --preset release -DBUILD_TESTING=OFF && cmake --build build; } >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    exit 1
}

# A key of this run only, in a file that only we can read.
umask 077
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/key"

label() { # NAME: shows each line of stdin under that name
    while IFS= read -r line; do
        printf '%-11s | %s\n' "$1" "$line"
    done
}

start_worker() { # NAME: becomes that worker
    case $1 in
    task-worker)
        exec timeout 120 build/bin/task-worker --master "$address" --authkey-file "$work/key" \
            --builtin square --count 10
        ;;
    python3)
        TASKQ_MASTER=$address TASKQ_AUTHKEY=$(cat "$work/key") PYTHONUNBUFFERED=1
        export TASKQ_MASTER TASKQ_AUTHKEY PYTHONUNBUFFERED
        exec timeout 120 python3 deploy/examples/task_worker.py
        ;;
    esac
}

run_example() { # WORKER: a master with ten tasks, and that worker to serve it
    worker=$1
    mkfifo "$work/$worker.master" "$work/$worker.worker"
    timeout 120 build/bin/task-master --listen 127.0.0.1:0 --authkey-file "$work/key" --demo 10 \
        >"$work/$worker.master" 2>"$work/master.err" </dev/null &
    master_pid=$!
    running="$running $master_pid"
    exec 3<"$work/$worker.master"
    address=
    while [ -z "$address" ]; do
        if ! IFS= read -r line <&3; then
            cat "$work/master.err" >&2
            echo "task-master did not start" >&2
            exit 1
        fi
        printf '%-11s | %s\n' task-master "$line"
        case $line in
        "task-master ready on "*) address=${line##* } ;;
        esac
    done
    label task-master <&3 &
    master_label=$!
    exec 3<&-

    start_worker "$worker" >"$work/$worker.worker" 2>"$work/worker.err" </dev/null &
    worker_pid=$!
    running="$running $worker_pid"
    label "$worker" <"$work/$worker.worker"
    worker_status=0 master_status=0
    wait "$worker_pid" || worker_status=$?
    wait "$master_pid" || master_status=$?
    wait "$master_label" || :
    running=
    if [ "$worker_status" -ne 0 ] || [ "$master_status" -ne 0 ]; then
        cat "$work/master.err" "$work/worker.err" >&2
        echo "The example failed: task-master ended with $master_status, $worker with $worker_status." >&2
        exit 1
    fi
}

echo
echo "== task-master and task-worker"
run_example task-worker

if command -v python3 >/dev/null 2>&1; then
    echo
    echo "== task-master and Python's own worker, deploy/examples/task_worker.py (a second for each task)"
    run_example python3
fi

echo
echo "It works. The programs are task-master, task-worker and task-ctl in build/bin/; README.md says how to go on."
