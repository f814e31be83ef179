# shellcheck shell=bash disable=SC2154 # as_server is env's
# Kafka, PostgreSQL and Redis on this machine: NAME_start makes what is missing, starts it and waits until it
# answers; NAME_stop ends it in order. Sourced after lib.sh.

# shellcheck disable=SC2034
SAGA_SERVERS="kafka postgres redis"

server_dir() { # NAME -> its folder, made
    local dir=$SAGA_RUN/$1
    [[ -d $dir ]] || install -d -m 700 ${SAGA_SERVER_USER:+-o "$SAGA_SERVER_USER" -g "$SAGA_SERVER_USER"} "$dir"
    echo "$dir"
}

# ---- Kafka: one node, broker and controller ----

# With the usual session of 9 s a broker killed with -9 waits for its own registration to expire; with one of 1 s it
# is fenced when the machine stands still.
kafka_properties() { # DATA
    cat <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$SAGA_KAFKA_CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$SAGA_KAFKA_PORT,CONTROLLER://127.0.0.1:$SAGA_KAFKA_CONTROLLER_PORT
controller.listener.names=CONTROLLER
log.dirs=$1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=300
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=8388608
END
}

kafka_java() { # ARCHIVE-OPTION ARGUMENTS...
    local jit=(-XX:TieredStopAtLevel=1)
    [[ $SAGA_KAFKA_JIT == full ]] && jit=()
    # shellcheck disable=SC2086 # options, several
    set -- env HOME="$SAGA_RUN" java $KAFKA_HEAP_OPTS -XX:+UseSerialGC "${jit[@]}" -XX:-UsePerfData -Xlog:disable "$1" \
        -Dlog4j2.configurationFile="$SAGA_JARS/log4j2.properties" -Dlog4j2.disable.jmx=true -Dsaga.log.level=INFO \
        -cp "$SAGA_JARS/*" "${@:2}"
    printf '%s\0' "${as_server[@]}" "$@"
}

kafka_answers() {
    port_answers "$SAGA_KAFKA_PORT" && kcat -b "127.0.0.1:$SAGA_KAFKA_PORT" -L -m 2 2>/dev/null | grep -q ' 1 brokers'
}

# The class archive halves the start; deploy/local/kafka makes it, and passes its own option for that.
# shellcheck disable=SC2120
kafka_start() { # [ARCHIVE-OPTION]
    local archive=${1:--XX:SharedArchiveFile=$SAGA_JARS/kafka.jsa} dir command
    pid_of kafka >/dev/null && return
    dir=$(server_dir kafka)
    kafka_properties "$dir/data" >"$dir/server.properties"
    chmod 644 "$dir/server.properties"
    if [[ ! -e $dir/data/meta.properties ]]; then
        mapfile -d '' command < <(kafka_java "$archive" kafka.tools.StorageTool format --standalone \
            --cluster-id "S$(head -c 15 /dev/urandom | base64 | tr +/ -_)A" --config "$dir/server.properties")
        (cd "$dir" && "${command[@]}" >>"$SAGA_LOG/kafka.log" 2>&1) || {
            tail -n 12 "$SAGA_LOG/kafka.log" >&2
            fail "Kafka's data could not be formatted ($SAGA_LOG/kafka.log)"
        }
    fi
    mapfile -d '' command < <(kafka_java "$archive" kafka.Kafka "$dir/server.properties")
    launch kafka "${command[@]}"
    launched_ready kafka 40 kafka_answers
    step kafka "127.0.0.1:$SAGA_KAFKA_PORT"
}

kafka_stop() {
    stop kafka TERM 20
}

# ---- PostgreSQL ----

# Role saga may log in from this machine without a password, as to Kafka and Redis here; the superuser only
# by the socket, which lies in a folder that none but the server's user (and root) can enter.
postgres_settings() { # SOCKET
    cat <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = '$1'
max_connections = 200
synchronous_commit = on
shared_buffers = 1GB
wal_compression = lz4
wal_buffers = 16MB
min_wal_size = 512MB
max_wal_size = 4GB
checkpoint_timeout = 15min
jit = off
bgwriter_lru_maxpages = 0
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
END
}

postgres_bin() { # the newest that is installed
    printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1
}

postgres_socket() { # a path above 107 bytes is too long for a socket
    local dir=$SAGA_RUN/postgres
    ((${#dir} < 85)) || dir=/tmp/saga-pg-$(printf '%s' "$dir" | cksum | cut -d' ' -f1)
    echo "$dir"
}

postgres_admin() { # SQL -> unaligned text
    PGOPTIONS='' "$(postgres_bin)/psql" -h "$(postgres_socket)" -U postgres -d postgres -XtAq \
        -v ON_ERROR_STOP=1 -v db="$PGDATABASE" <<<"$1"
}

postgres_answers() {
    "$(postgres_bin)/pg_isready" -q -h "$(postgres_socket)" -p "$PGPORT" -U postgres
}

postgres_make() { # DATA SOCKET: under another name until it is whole
    (cd "$SAGA_RUN" && "${as_server[@]}" "$(postgres_bin)/initdb" -D "$1.new" -U postgres -A trust -E UTF8 --locale=C \
        >>"$SAGA_LOG/postgres.log" 2>&1) || {
        tail -n 12 "$SAGA_LOG/postgres.log" >&2
        fail "initdb failed ($SAGA_LOG/postgres.log)"
    }
    postgres_settings "$2" >>"$1.new/postgresql.conf"
    printf '%s\n' 'local all all trust' 'host all saga 127.0.0.1/32 trust' >"$1.new/pg_hba.conf"
    mv "$1.new" "$1"
}

postgres_start() {
    local dir socket had=yes
    if ! pid_of postgres >/dev/null; then
        dir=$(server_dir postgres)/data
        socket=$(postgres_socket)
        [[ -d $socket ]] || install -d -m 700 ${SAGA_SERVER_USER:+-o "$SAGA_SERVER_USER"} "$socket"
        [[ $(stat -c %U "$socket") == "${SAGA_SERVER_USER:-$(id -un)}" ]] || fail "$socket belongs to another user"
        rm -rf "$dir.new"
        [[ -d $dir ]] || { postgres_make "$dir" "$socket" && had=''; }
        # The backends of a server killed with -9 may still be ending: until then a new one refuses.
        until_true 20 postgres_up "$dir" || true
        launched_ready postgres 20 postgres_answers
    fi
    if [[ -z $(postgres_admin "select 1 from pg_roles where rolname = 'saga'") ]]; then
        postgres_admin "create role saga login createdb in role pg_monitor, pg_checkpoint"
    fi
    if [[ -z $(postgres_admin "select 1 from pg_database where datname = :'db'") ]]; then
        postgres_admin 'create database :"db" owner saga'
    fi
    [[ -z ${dir-} ]] || step postgres "127.0.0.1:$PGPORT${had:+, data kept}"
}

postgres_up() { # DATA: starts it if it does not run
    if ! pid_of postgres >/dev/null; then
        # Batches are megabytes: memory that malloc keeps need not be faulted in again for each.
        MALLOC_MMAP_THRESHOLD_=67108864 MALLOC_TRIM_THRESHOLD_=268435456 \
            launch postgres "${as_server[@]}" "$(postgres_bin)/postgres" -D "$1" -p "$PGPORT"
    fi
    postgres_answers
}

postgres_stop() {
    stop postgres INT 20 # INT: ends the sessions, writes a checkpoint
}

# ---- Redis: a cache, nothing is kept ----

redis_answers() {
    [[ $(redis-cli -p "$SAGA_REDIS_PORT" ping 2>/dev/null) == PONG ]]
}

redis_start() {
    pid_of redis >/dev/null && return
    launch redis "${as_server[@]}" redis-server --port "$SAGA_REDIS_PORT" --bind 127.0.0.1 --dir "$(server_dir redis)" \
        --save '' --appendonly no --daemonize no
    launched_ready redis 10 redis_answers
    step redis "127.0.0.1:$SAGA_REDIS_PORT"
}

redis_stop() {
    stop redis TERM 5
}
