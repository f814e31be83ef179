# shellcheck shell=bash
# The services (Makefile's SERVICES) as background processes. Sourced after lib.sh.

listen_of() { # SERVICE -> host:port
    local name=${1%-svc}
    name=${name^^}_LISTEN
    echo "${!name}"
}

http_status() { # SERVICE PATH -> the status, 000 when nobody answers
    curl -s -m 2 -o /dev/null -w '%{http_code}' "http://$(listen_of "$1")$2" || true
}

service_answers() {
    [[ $(http_status "$1" /readyz) == 200 ]]
}

rebuilt() { # SERVICE: runs a program that has been replaced since
    local pid
    pid=$(pid_of "$1") && [[ $(readlink "/proc/$pid/exe") == *' (deleted)' ]]
}

service_launch() {
    [[ -x $SAGA_BIN/$1 ]] || fail "$SAGA_BIN/$1 is not built: make"
    HTTP_LISTEN=$(listen_of "$1") launch "$1" "$SAGA_BIN/$1"
}

service_await() {
    launched_ready "$1" 30 service_answers "$1"
    step "$1" "http://$(listen_of "$1")"
}

service_stop() {
    stop "$1" TERM 7 # a service takes 5 s at most
}
