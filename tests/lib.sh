# shellcheck shell=bash
# What the test scripts share: where things are kept, and how a check says what came of it. Sourced, never run.
#
# A check prints one line: `ok NAME`, `FAIL NAME: reason` or `skip NAME: reason`. tests/run counts them.

# Everything built or downloaded lies here; a build machine keeps this one folder between runs.
export MAYFLY_CACHE=${MAYFLY_CACHE:-$HOME/.cache/mayfly}
mkdir -p "$MAYFLY_CACHE"/{bin,cargo,go,logs,tools}

# A user's own Cargo settings (a mirror, a proxy) still count where Cargo's home moves into the cache.
for settings in config.toml credentials.toml; do
    own=${CARGO_HOME:-$HOME/.cargo}/$settings
    if [[ -f $own && ! $own -ef $MAYFLY_CACHE/cargo/$settings ]]; then
        ln -sf "$own" "$MAYFLY_CACHE/cargo/$settings"
    fi
done
export CARGO_HOME=$MAYFLY_CACHE/cargo
export CARGO_TARGET_DIR=$MAYFLY_CACHE/target
export GOMODCACHE=$MAYFLY_CACHE/go/mod
export GOCACHE=$MAYFLY_CACHE/go/build

# Parts that must be there, separated by commas (go,python,node,java,postgres,prometheus,root,systemd,strace,openssl): what is
# missing fails, not skips.
export MAYFLY_REQUIRE=${MAYFLY_REQUIRE:-}

# Set by `fail`; a check script ends with `exit "$failed"`.
# shellcheck disable=SC2034  # read by the scripts that source this one
failed=0

ok() { # NAME
    printf 'ok %s\n' "$1"
}

fail() { # NAME REASON
    printf 'FAIL %s: %s\n' "$1" "$2"
    # shellcheck disable=SC2034
    failed=1
}

skip() { # NAME PART REASON
    if [[ ,$MAYFLY_REQUIRE, == *,$2,* ]]; then
        fail "$1" "$3 (MAYFLY_REQUIRE names $2)"
    else
        printf 'skip %s: %s\n' "$1" "$3"
    fi
}

have() { # COMMAND
    command -v "$1" >/dev/null 2>&1
}

# A port of 127.0.0.1 that nobody listens on at this moment.
free_port() {
    python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
}
