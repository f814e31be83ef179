# shellcheck shell=bash
# The system under measurement: servers of the benchmark's own, a fresh database and fresh topics for each
# run, what the processes have used, and whether the end state is right. Sourced by run.

bench_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# The servers are ours alone, whatever the caller's environment says: CPU is counted by process.
unset KAFKA_BOOTSTRAP_SERVERS SAGA_OUR_KAFKA PGHOST SAGA_OUR_PGHOST DATABASE_URL REDIS_URL SAGA_OUR_REDIS \
    SAGA_TOPIC_PREFIX SAGA_INSTANCE
: "${BENCH_PORT:=29092}" # the first of seven; above 32767 they could be taken by any connection
# shellcheck disable=SC2016 # the inner bash is to expand it
SAGA_RUN=$(env -u SAGA_RUN bash -c 'source "$0" && echo "$SAGA_HOME"' "$bench_root/deploy/local/env")/run-bench
export SAGA_RUN SAGA_KAFKA_PORT=$BENCH_PORT SAGA_KAFKA_CONTROLLER_PORT=$((BENCH_PORT + 1)) PGPORT=$((BENCH_PORT + 2)) \
    SAGA_REDIS_PORT=$((BENCH_PORT + 3)) ORDER_LISTEN=127.0.0.1:$((BENCH_PORT + 4)) \
    INVENTORY_LISTEN=127.0.0.1:$((BENCH_PORT + 5)) PAYMENT_LISTEN=127.0.0.1:$((BENCH_PORT + 6)) \
    PGDATABASE=saga SAGA_LANES="${BENCH_LANES:-6}" SAGA_KAFKA_JIT=full LOG_LEVEL="${LOG_LEVEL:-warn}"
# As large as Kafka's own start script makes it: with the small heap of deploy/local the broker stands still for
# 15 to 45 ms about once a second under load, to collect garbage. In pages of 2 MB, as PostgreSQL's buffers (below).
export KAFKA_HEAP_OPTS="${KAFKA_HEAP_OPTS:--Xms1g -Xmx1g -Xmn512m -XX:+UseTransparentHugePages}"
# shellcheck source=SCRIPTDIR/../../deploy/local/lib.sh
source "$bench_root/deploy/local/lib.sh"
# shellcheck source=SCRIPTDIR/../../deploy/local/services.sh
source "$bench_root/deploy/local/services.sh"

bench_bin=$SAGA_RUN/bin

# PostgreSQL's buffers in pages of 2 MB, as its documentation advises ("Linux Huge Pages"), if we may ask the kernel
# for them: an eighth less CPU of PostgreSQL. Those that are in use go when it ends, the others at once.
with_huge_pages() ( # COMMAND...
    pages=/proc/sys/vm/nr_hugepages
    if [[ -w $pages ]]; then
        were=$(<"$pages")
        trap 'echo "$were" >"$pages"' EXIT
        echo $((were + 620)) >"$pages" # 1 GB of buffers, and what lies beside them
    fi
    "$@"
)

postgres_page_kb() {
    awk '/^KernelPageSize/ && $2 > kb { kb = $2 } END { print kb }' "/proc/$(pid_of postgres)/smaps"
}

servers_up() {
    with_huge_pages "$bench_root/deploy/local/up" servers
    echo "PostgreSQL's buffers lie in pages of $(postgres_page_kb) KB"
    # Copies: what is built meanwhile is not what is measured.
    rm -rf "$bench_bin"
    mkdir -p "$bench_bin"
    cp -P "$SAGA_BIN"/* "$bench_root"/build/bench/{load,get,floor_sql,floor_kafka} "$bench_bin"
    SAGA_BIN=$bench_bin
}

servers_down() { # and away with their data
    "$bench_root/deploy/local/down"
    rm -rf "$SAGA_RUN/kafka" "$SAGA_RUN/postgres"
}

sql() { # QUERY [DATABASE] -> unaligned text
    psql -XtAq -v ON_ERROR_STOP=1 -d "${2:-$PGDATABASE}" -c "$1"
}

# ---- A fresh system ----

# fresh NAME: a database and topics of a new name with that start, the services' tables made, every lane taken once, much stock
# of a thousand articles. The services are stopped.
fresh() {
    PGDATABASE=$1-$(now_ms)
    SAGA_TOPIC_PREFIX=$PGDATABASE.
    export SAGA_TOPIC_PREFIX PGDATABASE
    sql "create database \"$PGDATABASE\"" saga
    topics_apply
    services_start
    until_true 20 lanes_taken || fail "The services do not take their lanes ($SAGA_LOG)"
    services_stop
    sql "insert into inventory_svc.stock (sku, available, received)
              select 'sku-' || n, 1000000000, 1000000000 from generate_series(0, 999) n"
    sql checkpoint
}

lanes_taken() {
    (($(sql "select (select count(*) from order_svc.lane) + (select count(*) from inventory_svc.lane)
                  + (select count(*) from payment_svc.lane)") == 3 * SAGA_LANES))
}

topics_apply() {
    "$SAGA_BIN/sagactl" topics apply >>"$SAGA_LOG/topics.log" 2>&1 || fail "topics: $(tail -n 3 "$SAGA_LOG/topics.log")"
    until_true 10 topics_visible || fail "The topics that were made do not appear"
}

topics_visible() { # made is not yet known to who asks the broker
    (($(kcat -b "$KAFKA_BOOTSTRAP_SERVERS" -L -m 5 2>/dev/null | grep -c "topic \"$SAGA_TOPIC_PREFIX.* with $SAGA_LANES part") == 7))
}

# What is left behind would be kept in memory and written to disk while the next run is measured.
discard() {
    services_stop
    "$SAGA_BIN/kafka-topics" --delete --topic "${SAGA_TOPIC_PREFIX//./\\.}.*" >>"$SAGA_LOG/topics.log" 2>&1
    sql "drop database \"$PGDATABASE\"" saga
    sql checkpoint saga
    PGDATABASE=saga
    SAGA_TOPIC_PREFIX=
}

services_launch() {
    local service
    for service in $SAGA_SERVICES; do
        service_launch "$service"
    done
}

services_start() {
    local service
    services_launch
    for service in $SAGA_SERVICES; do
        launched_ready "$service" 30 service_answers "$service"
    done
}

services_stop() {
    local service stopping=()
    for service in $SAGA_SERVICES; do
        service_stop "$service" &
        stopping+=($!)
    done
    wait "${stopping[@]}"
}

# ---- What it used ----

# cpu -> the ticks that order, inventory, payment, postgres and kafka have used since their start; then those
# that the whole machine has been busy, and all of them.
cpu() {
    local name pid
    for name in order-svc inventory-svc payment-svc; do
        if pid=$(pid_of "$name"); then ticks "$pid"; else echo 0; fi
    done
    pid=$(pid_of postgres)
    postgres_ticks "$pid"
    ticks "$(pid_of kafka)"
    awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8; print $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat
}

ticks() { # PID, or PID/task/TID of one of its threads -> user and system time
    local stat
    stat=$(<"/proc/$1/stat")
    read -ra stat <<<"${stat##*) }"
    echo $((stat[11] + stat[12]))
}

# Of the threads that compile the broker's Java. One that ends takes its ticks along.
broker_compiler_ticks() {
    local pid thread sum=0
    pid=$(pid_of kafka)
    for thread in "/proc/$pid/task"/*; do
        [[ $(<"$thread/comm") != C[12]\ Compiler* ]] || sum=$((sum + $(ticks "$pid/task/${thread##*/}" || echo 0)))
    done 2>/dev/null
    echo "$sum"
}

# All its processes: the postmaster, the children that it has outlived, those that live. Again, if one ended
# meanwhile.
postgres_ticks() { # PID
    local sum stat child outlived=
    while true; do
        stat=$(<"/proc/$1/stat")
        read -ra stat <<<"${stat##*) }"
        [[ $outlived != $((stat[13] + stat[14])) ]] || break
        outlived=$((stat[13] + stat[14]))
        sum=$((stat[11] + stat[12] + outlived))
        for child in $(<"/proc/$1/task/$1/children"); do
            sum=$((sum + $(ticks "$child" 2>/dev/null || echo 0)))
        done
    done
    echo "$sum"
}

# cpu_per SAGAS BEFORE AFTER -> us per saga of each component, then of all; BEFORE and AFTER are from cpu.
cpu_per() {
    awk -v n="$1" -v hz="$(getconf CLK_TCK)" -v before="$2" -v after="$3" 'BEGIN {
        split(before, b); split(after, a)
        for (i = 1; i <= 5; i++) { us = (a[i] - b[i]) * 1000000 / hz / n; sum += us; printf "%.1f ", us }
        printf "%.1f\n", sum }'
}

# others BEFORE AFTER -> percent of the machine that others than the components have used (our clients too).
others() {
    awk -v before="$1" -v after="$2" 'BEGIN {
        split(before, b); split(after, a); used = a[6] - b[6]
        for (i = 1; i <= 5; i++) used -= a[i] - b[i]
        printf "%.0f\n", (used > 0 ? used : 0) * 100 / (a[7] - b[7]) }'
}

rss() { # VmHWM or VmRSS -> MB of order-svc, inventory-svc, payment-svc
    local service
    for service in order-svc inventory-svc payment-svc; do
        awk -v what="$1:" '$1 == what { printf "%.1f ", $2 / 1024 }' "/proc/$(pid_of "$service")/status"
    done
}

wal() {
    sql "select pg_current_wal_insert_lsn() - '0/0'"
}

# ---- Whether it is right ----

# check_balance ORDERS: all are paid, and stock and money balance.
check_balance() {
    local wrong
    wrong=$(sql "
        with sku as (
            select line->>'sku' as sku, sum((line->>'quantity')::bigint) as held
              from inventory_svc.reservation, json_array_elements(lines) line where state = 'HELD' group by 1),
        facts (what, found, meant) as (values
            ('orders PAID', (select count(*) from order_svc.orders where state = 'PAID'), $1),
            ('orders', (select count(*) from order_svc.orders), $1),
            ('reservations HELD', (select count(*) from inventory_svc.reservation where state = 'HELD'), $1),
            ('payments COMPLETED', (select count(*) from payment_svc.payment where state = 'COMPLETED'), $1),
            ('charges', (select count(*) from payment_svc.ledger where reason is null), $1),
            ('money', (select sum(amount) from payment_svc.ledger where reason is null),
                      (select sum(amount) from order_svc.orders)),
            ('articles that do not balance', (select count(*) from inventory_svc.stock
                left join sku using (sku) where available + reserved + shipped <> received
                                             or reserved <> coalesce(held, 0)), 0),
            ('pieces reserved', (select sum(reserved) from inventory_svc.stock),
                (select sum((line->>'quantity')::bigint) from order_svc.orders, json_array_elements(lines) line)),
            ('movements', (select count(*) from inventory_svc.stock_movement),
                (select sum(json_array_length(lines)) from order_svc.orders)))
        select what || ': ' || coalesce(found::text, 'none') || ' instead of ' || meant
          from facts where found is distinct from meant")
    [[ -z $wrong ]] || fail "The end state is wrong: ${wrong//$'\n'/, }"
}
