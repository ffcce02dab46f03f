# shellcheck shell=sh disable=SC2034 # the lists are for those who read this file
# Read by the scripts that build: what Debian calls the things we need, and how to have them.

# To build the programs.
build_packages='build-essential cmake ninja-build pkg-config libuv1-dev libssl-dev libisal-dev libjansson-dev uthash-dev'
# To test them. A|B: whichever of them this release has.
test_packages='libcmocka-dev libmsgpack-c-dev|libmsgpack-dev python3 python3-msgpack'
# To build with the other compiler.
clang_packages='clang'
# For the checks of .ci/run that look at the sources.
lint_packages='clang-format clang-tidy cppcheck shellcheck'

# package_installed PACKAGE|PACKAGE...: is one of them?
package_installed() {
    for candidate in $(echo "$1" | tr '|' ' '); do
        case $(dpkg-query -W -f='${db:Status-Status}' "$candidate" 2>/dev/null) in
        installed) return 0 ;;
        esac
    done
    return 1
}

# choose_packages PACKAGE|PACKAGE...: prints for each the first that can be had, else the last.
choose_packages() {
    for package in "$@"; do
        for candidate in $(echo "$package" | tr '|' ' '); do
            case $(LC_ALL=C apt-cache policy "$candidate" 2>/dev/null) in
            *"Candidate: (none)"*) ;;
            *"Candidate: "*) break ;;
            esac
        done
        printf ' %s' "$candidate"
    done
}

# need_packages PACKAGE... installs those that are missing. It asks for root only if one is.
need_packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        echo "This is no Debian: make sure that you have what these packages hold: $*" >&2
        return 0
    fi
    missing=
    for package in "$@"; do
        package_installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        echo "These packages are missing, and only root can install them. As root, run:" >&2
        # shellcheck disable=SC2086 # words on purpose
        echo "    apt-get install$(choose_packages $missing)" >&2
        return 1
    fi
    echo "Installing:$missing"
    apt_log=$(mktemp)
    # What there is to choose from is known after the update only.
    # shellcheck disable=SC2046,SC2086 # words on purpose
    if { $as_root apt-get -qq update &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
            $(choose_packages $missing)
    } </dev/null >"$apt_log" 2>&1; then
        rm -f "$apt_log"
        return 0
    fi
    cat "$apt_log" >&2
    rm -f "$apt_log"
    echo "apt-get could not install:$missing" >&2
    return 1
}
