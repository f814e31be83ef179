# shellcheck shell=bash
# What the scripts share: printing steps, processes with pid files, ports. Sources env.

# shellcheck source=SCRIPTDIR/env
source "$(dirname "${BASH_SOURCE[0]}")/env"
export LC_ALL=C

bold='' red='' plain=''
if [[ -t 1 ]]; then
    bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
fi

now_ms() {
    local us=${EPOCHREALTIME/./}
    echo $((us / 1000))
}

step_began=$(now_ms)

# step NAME TEXT: says what was done and how long it took, since the step before.
step() {
    local now
    now=$(now_ms)
    printf '%s%-15s%s %-36s %5d.%d s\n' "$bold" "$1" "$plain" "$2" \
        $(((now - step_began) / 1000)) $(((now - step_began) % 1000 / 100))
    step_began=$now
}

fail() {
    printf '%s%s%s\n' "$red" "$*" "$plain" >&2
    exit 1
}

size_of() { # a file's or folder's, in MB
    du -sm "$1" | cut -f1
}

# until_true SECONDS COMMAND...: asks again every 50 ms.
until_true() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        (($(now_ms) < end)) || return 1
        sleep 0.05
    done
}

# Makes SAGA_RUN and SAGA_LOG, and lets one script at a time work in them: sequence them by a lock that
# ends with the script.
take_run_dir() {
    if [[ $SAGA_HOME != "$SAGA_ROOT/build" ]]; then
        mkdir -p "$SAGA_HOME"
        [[ -O $SAGA_HOME ]] || fail "$SAGA_HOME belongs to another user: remove it, or set SAGA_RUN"
    fi
    mkdir -p "$SAGA_RUN" "$SAGA_LOG" || fail "Set SAGA_RUN to a folder that can be made"
    [[ -O $SAGA_RUN ]] || fail "$SAGA_RUN belongs to another user: use that one, or set SAGA_RUN"
    exec 9>"$SAGA_RUN/lock"
    flock 9
}

# ---- Processes: $SAGA_RUN/NAME.pid holds the pid and, against reuse of the number, its start time ----

start_time() { # of a pid, in the kernel's ticks; nothing for a dead one
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -r -a stat <<<"${stat##*) }"
    [[ ${stat[0]} == Z ]] || echo "${stat[19]}"
}

pid_of() { # NAME -> the pid, if it is the process that we started and it lives. No time: it died at once
    local pid began
    { read -r pid && read -r began; } 2>/dev/null <"$SAGA_RUN/$1.pid" || return 1
    [[ $began && $(start_time "$pid") == "$began" ]] && echo "$pid"
}

process_named() { # S COMMAND -> the full name: payment is payment-svc
    local known=" kafka postgres redis $SAGA_SERVICES "
    [[ $known != *" $1 "* || -z $1 ]] || { echo "$1" && return; }
    [[ $known != *" $1-svc "* || -z $1 ]] || { echo "$1-svc" && return; }
    fail "Which one? make $2 S=${SAGA_SERVICES%%-svc*}, or:${known//-svc/}"
}

# launch NAME COMMAND...: in the background, out of reach of the terminal's signals.
launch() {
    local name=$1 pid
    shift
    (cd "$SAGA_RUN" && exec setsid "$@" </dev/null >>"$SAGA_LOG/$name.log" 2>&1 3>&- 4>&- 5>&- 6>&- 8>&- 9>&-) &
    pid=$!
    printf '%s\n%s\n' "$pid" "$(start_time "$pid")" >"$SAGA_RUN/$name.pid"
}

# launched_ready NAME SECONDS COMMAND...: waits until COMMAND is true; shows the log's end if it does not come.
launched_ready() {
    local name=$1 seconds=$2
    shift 2
    if ! until_true "$seconds" alive_and "$name" "$@" || ! pid_of "$name" >/dev/null; then
        tail -n 12 "$SAGA_LOG/$name.log" >&2
        pid_of "$name" >/dev/null && fail "$name is not ready after $seconds s ($SAGA_LOG/$name.log)"
        fail "$name has ended ($SAGA_LOG/$name.log)"
    fi
}

alive_and() { # true also for a process that has ended: nothing is left to wait for
    ! pid_of "$1" >/dev/null || "${@:2}"
}

ended() {
    ! pid_of "$1" >/dev/null
}

# stop NAME SIGNAL SECONDS: after that -9.
stop() {
    local pid
    pid=$(pid_of "$1") || return 0
    kill "-$2" "$pid"
    until_true "$3" ended "$1" || kill -9 "$pid"
    until_true 5 ended "$1"
    rm -f "$SAGA_RUN/$1.pid"
}

# ---- Ports ----

# claim_port NAME PORT VARIABLE [HOST:]: fails with one line if somebody else listens there.
claim_port() {
    local holder
    pid_of "$1" >/dev/null && return
    holder=$(ss -ltnpH "sport = :$2")
    [[ -z $holder ]] && return
    if [[ $holder =~ \(\(\"([^\"]*)\",pid=([0-9]+) ]]; then
        holder="${BASH_REMATCH[1]} (pid ${BASH_REMATCH[2]})"
    else
        holder="a process of another user"
    fi
    fail "Port $2, for $1, is taken by $holder. To use another one: $3=${4-}$(($2 < 50000 ? $2 + 10000 : $2 - 10000)) make up"
}

# What sagactl has to be told where not all ports are the usual ones.
other_ports() {
    [[ "$SAGA_KAFKA_PORT $ORDER_URL $INVENTORY_URL $PAYMENT_URL" != \
        '9092 http://127.0.0.1:8081 http://127.0.0.1:8082 http://127.0.0.1:8083' ]] || return 0
    printf '  export KAFKA_BOOTSTRAP_SERVERS=%s ORDER_URL=%s INVENTORY_URL=%s PAYMENT_URL=%s\n' \
        "$KAFKA_BOOTSTRAP_SERVERS" "$ORDER_URL" "$INVENTORY_URL" "$PAYMENT_URL"
}

port_answers() {
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
