/* What PostgreSQL costs alone: the SQL batches of a saga without Kafka, rules or reading.
 *
 *     floor_sql N        N sagas' rows, in a database that the services have made and left; prints
 *                        "SECONDS CPU_US": from the first BEGIN to the last COMMIT, and our CPU per
 *                        saga
 *
 * Three threads stand for the services, each with a connection (the payment's has a second one, for
 * the provider's ledger). Their batches have 2,000 inputs as the engine's have under load, one half
 * new orders and the other half those of the batch before, and the engine's two round trips: lanes
 * locked, keys asked for; rows, outbox, lanes and positions stored. Tables, their statements and
 * the outbox are the real ones; what the engine keeps to itself stands below once more. Rows are
 * copies of a few, with keys of their own. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine.h"
#include "field.h"
#include "json.h"
#include "outbox.h"

enum { BATCH = 2000, HALF = BATCH / 2, LANES = 12, SKUS = 1000, SECOND = 1000000 };

/* Of order_store.c, inventory_store.c and payment_store.c: their headers use the same names for
 * different things. */
extern const struct saga_table order_table, reservation_table, stock_table, movement_table,
    payment_table;

/* ---- Statements that are private to the engine (service.c, run.c, store.c, due.c) and the
 * provider ---- */

/* clang-format off */
static const char session[] =
    "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off;"
    "set jit = off; set plan_cache_mode = force_generic_plan";

static const char begin[] = "begin";
static const char commit[] = "commit";

static const char lock_lanes[] =
    "select lane, term, last_seq from lane where lane = any($1) order by lane for no key update";

static const char clock_and_slot[] =
    "select slot, (extract(epoch from clock_timestamp()) * 1000000)::bigint from outbox_current";

static const char store_lanes[] =
    "update lane l"
    "   set last_seq = n.last_seq, last_id = n.last_id, published = n.published,"
    "       published_offset = n.published_offset, published_id = n.published_id"
    "  from unnest($1::int[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])"
    "       n(lane, last_seq, last_id, published, published_offset, published_id)"
    " where l.lane = n.lane";

static const char store_inputs[] =
    "update lane_input i"
    "   set next_offset = n.next_offset, screened = n.screened, last_id = n.last_id"
    "  from unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])"
    "       n(lane, topic, next_offset, screened, last_id)"
    " where i.lane = n.lane and i.topic = n.topic";

static const char store_due[] =
    "insert into due (lane, at, keys)"
    "     select lane, at, array_agg(key)"
    "       from unnest($1::int[], $2::timestamptz[], $3::text[]) n(lane, at, key)"
    "      group by lane, at";

static const char book_charges[] =
    "insert into ledger (key, amount, reason)"
    " select unnest($1::text[]), unnest($2::bigint[]), unnest($3::text[])";

/* ---- Rows ---- */

#define LINE1 "{\"sku\":\"sku-465\",\"quantity\":2,\"unit_price\":1425}"
#define LINE2 ",{\"sku\":\"sku-764\",\"quantity\":1,\"unit_price\":712}"
#define HELD1 "{\"sku\":\"sku-465\",\"quantity\":2}"
#define HELD2 ",{\"sku\":\"sku-764\",\"quantity\":1}"
#define AT1   "\"2026-11-24T13:31:25.123456Z\""
#define AT2   "\"2026-11-24T13:31:26.654321Z\""
#define WAS   "{\"status\":\"CREATED\",\"at\":" AT1 ",\"cause\":\"order.requests/7/8812\"}"
#define IS    "{\"status\":\"PAID\",\"at\":" AT2 ",\"cause\":\"7.10423.1795513885123\"}"

#define ORDER(lines, rest)                                                                        \
    "{\"order_id\":\"ord\",\"lane\":0,\"created_at\":" AT1 ",\"amount\":3562,"                     \
    "\"customer_id\":\"customer-2327\",\"currency\":\"EUR\",\"payment_mode\":\"now\","             \
    "\"payment_token\":\"tok_ok\",\"lines\":[" lines "],\"requested\":false," rest "}"
#define CREATED "\"state\":\"CREATED\",\"due\":" AT2 ",\"cause\":\"order.requests/7/8812\",\"history\":[" WAS "]"
#define PAID    "\"state\":\"PAID\",\"cause\":\"7.10423.1795513885123\",\"history\":[" WAS "," IS "]"
#define BILL(rest)                                                                                \
    "{\"order_id\":\"ord\",\"lane\":0,\"created_at\":" AT1 ",\"amount\":3562,\"currency\":\"EUR\","\
    "\"token\":\"tok_ok\",\"payment_id\":\"pay-7.10423.1795513885123\",\"cancel\":false,"          \
    "\"calls\":1,\"cause\":\"7.10423.1795513885123\"," rest "}"
#define CHARGED "\"state\":\"COMPLETED\",\"provider_ref\":\"sim-charge:ord-48815\","               \
    "\"attempts\":[{\"kind\":\"charge\",\"at\":" AT2 ",\"outcome\":\"succeeded\",\"ref\":\"sim-charge:ord-48815\",\"skipped\":0}]"

/* One line, two lines: every other order. */
static const char *const created[] = {ORDER(LINE1, CREATED), ORDER(LINE1 LINE2, CREATED)};
static const char *const paid[] = {ORDER(LINE1, PAID), ORDER(LINE1 LINE2, PAID)};
static const char *const held[] = {
    "{\"order_id\":\"ord\",\"state\":\"HELD\",\"lines\":[" HELD1 "]}",
    "{\"order_id\":\"ord\",\"state\":\"HELD\",\"lines\":[" HELD1 HELD2 "]}"};
static const char *const charging[] = {BILL("\"state\":\"CHARGING\",\"due\":" AT2),
                                       BILL("\"state\":\"CHARGING\",\"due\":" AT2)};
static const char *const charged[] = {BILL(CHARGED), BILL(CHARGED)};
static const char stock[] = "{\"sku\":\"sku-%d\",\"received\":1000000000,\"available\":999999900,"
                            "\"reserved\":100,\"shipped\":0,\"version\":51}";
static const char moved[] = "{\"sku\":\"sku-%d\",\"kind\":\"reserved\",\"quantity\":2,\"order_id\":\"ord-48815\","
                            "\"event_id\":\"7.10423.1795513885123\",\"at\":" AT1 "}";
/* clang-format on */

/* An event of the mean size of the six that a saga writes. */
static const char event[] =
    "{\"specversion\":\"1.0\",\"id\":\"7.10423.1795513885123\",\"source\":\"/order-svc\","
    "\"type\":\"OrderCreated\",\"subject\":\"ord-48815\",\"time\":\"2026-11-24T13:31:25.123Z\","
    "\"previousid\":\"7.10422.1795513885123\",\"causationid\":\"order.requests/7/8812\",\"data\":"
    "{\"order_id\":\"ord-48815\",\"currency\":\"EUR\",\"amount\":3562,\"payment\":{\"mode\":"
    "\"now\","
    "\"token\":\"tok_ok\"},\"lines\":[{\"sku\":\"sku-465\",\"quantity\":2}]}}";

static void die(const char *what, const char *text)
{
    fprintf(stderr, "floor_sql: %s: %s\n", what, text);
    exit(1);
}

static void *row_of(const struct saga_table *table, const char *text)
{
    static struct saga_arena arena; /* kept */
    struct saga_err err = {0};
    struct saga_json json;
    void *row = saga_arena_zero(&arena, table->size);

    saga_json_init(&json, text, strlen(text), &arena, &err);
    if (saga_fields_read(table->columns, &json, "", row, &arena, &err) < 0)
        die(text, err.text);
    return row;
}

/* ---- A service ---- */

struct floor {
    const char *name, *schema, *topic;
    const char *topics[3]; /* read */
    const struct saga_table *orders, *shared, *log;
    const char *const *first, *const *then; /* the rows of an order; then NULL: none */
    int fresh;                              /* new orders in a batch, */
    int events[2]; /* and events out: of those, of those of the batch before */
    bool ledger;

    struct saga_pg *pg, *provider;
    struct saga_params p;
    struct saga_batch batch;
    const void *rows[2][2]; /* first, then; odd and even */
    const void *stock[SKUS], *moves[SKUS];
    int slot;
    int64_t now, seq;
};

static struct floor floors[] = {
    {"order",
     "order_svc",
     "order.events",
     {"order.requests", "inventory.events", "payment.events"},
     &order_table,
     .first = created,
     .then = paid,
     .fresh = HALF,
     .events = {HALF, HALF}},
    {"inventory",
     "inventory_svc",
     "inventory.events",
     {"order.events", "payment.events"},
     &reservation_table,
     &stock_table,
     &movement_table,
     held,
     .fresh = BATCH,
     .events = {BATCH}},
    {"payment",
     "payment_svc",
     "payment.events",
     {"order.events", "inventory.events"},
     &payment_table,
     .first = charging,
     .then = charged,
     .fresh = HALF,
     .events = {0, HALF},
     .ledger = true},
};
enum { FLOORS = sizeof floors / sizeof *floors };

static int64_t sagas;
static pthread_barrier_t at_once;

static void prepare(struct floor *f)
{
    char text[512];

    f->pg = saga_pg_new("", "floor", f->schema);
    saga_pg_session(f->pg, session);
    f->provider = saga_pg_new("", "floor", f->schema);
    saga_pg_session(f->provider, session);
    for (int i = 0; i < 2; i++) {
        f->rows[0][i] = row_of(f->orders, f->first[i]);
        f->rows[1][i] = f->then ? row_of(f->orders, f->then[i]) : NULL;
    }
    for (int i = 0; i < SKUS && f->shared; i++) {
        snprintf(text, sizeof text, stock, i);
        f->stock[i] = row_of(f->shared, text);
        snprintf(text, sizeof text, moved, i);
        f->moves[i] = row_of(f->log, text);
    }
    f->batch.out = saga_alloc(BATCH * sizeof *f->batch.out);
    saga_buf_str(&f->batch.values, event);
}

/* ---- Parameters ---- */

static const char *key_of(int64_t n, char *out)
{
    sprintf(out, "ord-%" PRId64, n);
    return out;
}

#define EACH(p, oid, i, n, put)                                                                    \
    do {                                                                                           \
        saga_param_array(p, oid);                                                                  \
        for (int i = 0; i < (n); i++)                                                              \
            put;                                                                                   \
        saga_param_array_end(p);                                                                   \
    } while (0)

static void send(struct floor *f, const char *sql, struct saga_err *err)
{
    if (saga_pg_send(f->pg, sql, &f->p, err) < 0)
        die(f->name, err->text);
    saga_params_reset(&f->p);
}

static void end(struct saga_pg *pg, const char *name, struct saga_err *err)
{
    if (saga_pg_sync(pg, err) < 0 || saga_pg_wait(pg, err) < 0)
        die(name, err->text);
}

/* ---- Round trip 1 ---- */

static void load(struct floor *f, int64_t from, struct saga_err *err)
{
    char key[32];

    send(f, begin, err);
    EACH(&f->p, SAGA_OID_INT4, i, LANES, saga_element_int4(&f->p, i));
    send(f, lock_lanes, err);
    send(f, clock_and_slot, err);
    EACH(&f->p, SAGA_OID_TEXT, i, f->fresh, saga_element_text(&f->p, key_of(from + i, key), -1));
    send(f, f->orders->load, err);
    if (f->shared) {
        EACH(&f->p, SAGA_OID_TEXT, i, SKUS,
             saga_element_text(&f->p, ((const struct saga_row *)f->stock[i])->key, -1));
        EACH(&f->p, SAGA_OID_TEXT, i, 0, (void)i);
        send(f, f->shared->load, err);
    }
    end(f->pg, f->name, err);
    f->slot = (int)saga_rows_int(saga_pg_result(f->pg, 2), 0, 0);
    f->now = saga_rows_int(saga_pg_result(f->pg, 2), 0, 1);
}

/* ---- Round trip 2 ---- */

/* n orders from number from on: as new rows, or as they are then. */
static void store_orders(struct floor *f, int64_t from, int n, bool then, struct saga_err *err)
{
    struct saga_row *copy[2];
    char key[32];

    for (int i = 0; i < 2; i++) {
        copy[i] = saga_alloc(f->orders->size);
        memcpy(copy[i], f->rows[then][i], f->orders->size);
        copy[i]->key = key;
    }
    for (const struct saga_field *c = f->orders->columns; c->name; c++) {
        if (then && c->fixed && c != f->orders->columns)
            continue;
        saga_param_array(&f->p, saga_column_oid(c));
        for (int i = 0; i < n; i++) {
            struct saga_row *row = copy[i % 2];
            if (c == f->orders->columns)
                key_of(from + i, key);
            row->lane = i % LANES;
            saga_element_column(&f->p, c, row);
        }
        saga_param_array_end(&f->p);
    }
    send(f, then ? f->orders->update : f->orders->insert, err);
    free(copy[0]), free(copy[1]);
}

/* Rows as they are; known: an update. */
static void store_rows(struct floor *f, const struct saga_table *table, const void *const *rows,
                       int n, bool known, struct saga_err *err)
{
    for (const struct saga_field *c = table->columns; c->name; c++) {
        if (known && c->fixed && c != table->columns)
            continue;
        EACH(&f->p, saga_column_oid(c), i, n, saga_element_column(&f->p, c, rows[i % SKUS]));
    }
    send(f, known ? table->update : table->insert, err);
}

/* One deadline for all orders that are new. */
static void store_deadlines(struct floor *f, int64_t from, struct saga_err *err)
{
    static const struct saga_field at = {"at", 0, SAGA_TIME};
    int64_t due = f->now + INT64_C(900) * SECOND;
    char key[32];

    EACH(&f->p, SAGA_OID_INT4, i, f->fresh, saga_element_int4(&f->p, i % LANES));
    EACH(&f->p, SAGA_OID_TIMESTAMPTZ, i, f->fresh,
         (saga_element_column(&f->p, &at, &due), (void)i));
    EACH(&f->p, SAGA_OID_TEXT, i, f->fresh, saga_element_text(&f->p, key_of(from + i, key), -1));
    send(f, store_due, err);
}

static void store_outbox(struct floor *f, int events, struct saga_err *err)
{
    struct saga_batch *b = &f->batch;

    b->now = f->now;
    b->out_n = events;
    for (int i = 0; i < b->out_n; i++)
        b->out[i] = (struct saga_out){.lane = i % LANES,
                                      .seq = ++f->seq,
                                      .topic = f->topic,
                                      .partition = i % LANES,
                                      .key = "ord-48815",
                                      .key_n = 9,
                                      .n = sizeof event - 1};
    if (saga_outbox_store(f->pg, b, f->slot, &f->p, err) < 0)
        die(f->name, err->text);
    saga_params_reset(&f->p);
}

static void store_positions(struct floor *f, struct saga_err *err)
{
    static const char id[] = "7.10423.1795513885123";
    struct saga_params *p = &f->p;
    int topics = 0;

    while (topics < 3 && f->topics[topics])
        topics++;
    EACH(p, SAGA_OID_INT4, i, LANES, saga_element_int4(p, i));
    EACH(p, SAGA_OID_INT8, i, LANES, saga_element_int(p, f->seq + i));
    EACH(p, SAGA_OID_TEXT, i, LANES, (saga_element_text(p, id, -1), (void)i));
    EACH(p, SAGA_OID_INT8, i, LANES, saga_element_int(p, f->seq - BATCH + i));
    EACH(p, SAGA_OID_INT8, i, LANES, saga_element_int(p, f->seq + i));
    EACH(p, SAGA_OID_TEXT, i, LANES, (saga_element_text(p, id, -1), (void)i));
    send(f, store_lanes, err);
    EACH(p, SAGA_OID_INT4, i, LANES * topics, saga_element_int4(p, i % LANES));
    EACH(p, SAGA_OID_TEXT, i, LANES * topics, saga_element_text(p, f->topics[i / LANES], -1));
    EACH(p, SAGA_OID_INT8, i, LANES * topics, saga_element_int(p, f->seq + i));
    EACH(p, SAGA_OID_INT8, i, LANES * topics, saga_element_int(p, f->seq + i));
    EACH(p, SAGA_OID_TEXT, i, LANES * topics, (saga_element_text(p, id, -1), (void)i));
    send(f, store_inputs, err);
}

/* The orders from `from` on are new, those of the batch before become what they are then. */
static void store(struct floor *f, int64_t from, struct saga_err *err)
{
    bool first = from < sagas, then = f->then && from > 0;
    int events = (first ? f->events[0] : 0) + (then ? f->events[1] : 0);

    if (first)
        store_orders(f, from, f->fresh, false, err);
    if (then)
        store_orders(f, from - f->fresh, f->fresh, true, err);
    if (f->shared) {
        store_rows(f, f->shared, f->stock, SKUS, true, err);
        store_rows(f, f->log, f->moves, f->fresh * 3 / 2, false, err);
    }
    if (first && f->then)
        store_deadlines(f, from, err);
    if (events)
        store_outbox(f, events, err);
    store_positions(f, err);
    send(f, commit, err);
    end(f->pg, f->name, err);
}

/* The provider's transaction over the calls of a batch, while the next one is loaded. */
static void charge(struct floor *f, int64_t from, struct saga_err *err)
{
    char key[48];

    saga_params_reset(&f->p);
    EACH(&f->p, SAGA_OID_TEXT, i, f->fresh,
         saga_element_text(&f->p, key, sprintf(key, "charge:ord-%" PRId64, from + i)));
    EACH(&f->p, SAGA_OID_INT8, i, f->fresh, saga_element_int(&f->p, 3562 + i));
    EACH(&f->p, SAGA_OID_TEXT, i, f->fresh, (saga_element_text(&f->p, NULL, 0), (void)i));
    if (saga_pg_send(f->provider, book_charges, &f->p, err) < 0 ||
        saga_pg_sync(f->provider, err) < 0)
        die("provider", err->text);
    saga_params_reset(&f->p);
}

static void *run(void *arg)
{
    struct floor *f = arg;
    struct saga_err err = {0};

    if (saga_pg_connect(f->pg, &err) < 0 || saga_pg_connect(f->provider, &err) < 0)
        die(f->name, err.text);
    pthread_barrier_wait(&at_once);
    for (int64_t from = 0; from < sagas + (f->then ? f->fresh : 0); from += f->fresh) {
        load(f, from, &err);
        if (f->ledger && from && saga_pg_wait(f->provider, &err) < 0)
            die("provider", err.text);
        store(f, from, &err);
        if (f->ledger && from < sagas)
            charge(f, from, &err);
    }
    pthread_barrier_wait(&at_once);
    return NULL;
}

int main(int argc, char **argv)
{
    struct rusage used;
    pthread_t thread;

    sagas = argc == 2 ? atoll(argv[1]) : 0;
    if (sagas < BATCH || sagas % BATCH)
        die("usage", "floor_sql N, a multiple of 2000");
    pthread_barrier_init(&at_once, NULL, FLOORS + 1);
    for (int i = 0; i < FLOORS; i++) {
        prepare(&floors[i]);
        if (pthread_create(&thread, NULL, run, &floors[i]))
            die("thread", "none");
    }
    pthread_barrier_wait(&at_once);
    int64_t start = saga_now();
    pthread_barrier_wait(&at_once);
    int64_t took = saga_now() - start;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * SECOND +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    printf("%.3f %.1f\n", (double)took / SECOND, cpu / (double)sagas);
    return 0;
}
