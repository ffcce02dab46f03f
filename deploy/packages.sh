# shellcheck shell=sh disable=SC2034 # the lists are for those who read this file
# Read by the scripts that build: what Debian calls the things we need, and how to have them.

# To build the programs.
build_packages='build-essential cmake ninja-build pkg-config libuv1-dev libssl-dev uthash-dev'
# To test them.
test_packages='libcmocka-dev python3'
# To build with the other compiler.
clang_packages='clang'
# For the checks of .ci/run that look at the sources.
lint_packages='clang-format clang-tidy cppcheck shellcheck'

# need_packages PACKAGE... installs those that are missing. It asks for root only if one is.
need_packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        echo "This is no Debian: make sure that you have what these packages hold: $*" >&2
        return 0
    fi
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        echo "These packages are missing, and only root can install them. As root, run:" >&2
        echo "    apt-get install$missing" >&2
        return 1
    fi
    echo "Installing:$missing"
    apt_log=$(mktemp)
    # shellcheck disable=SC2086 # words on purpose
    if { $as_root apt-get -qq update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing
    } </dev/null >"$apt_log" 2>&1; then
        rm -f "$apt_log"
        return 0
    fi
    cat "$apt_log" >&2
    rm -f "$apt_log"
    echo "apt-get could not install:$missing" >&2
    return 1
}
