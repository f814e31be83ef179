/* The outbox's tables.
 *
 * Happy path: one INSERT per batch, an array element per row; nothing is read, marked or deleted.
 * After a crash or a dead producer the rows above `published` are read back and sent again; readers
 * drop what they know. When the current table is old or large the other one, whose rows are all
 * published by then, is truncated and becomes current. A lane that cannot publish keeps its rows:
 * the table is not truncated and the current one grows. */
#include "outbox.h"

#include <stdlib.h>

#include "failpoint.h"

/* ---- Storing ---- */

#define INSERT(table)                                                                              \
    "insert into " table " (created_at, lane, seq, topic, partition, key, value, headers)"         \
    "     values ($1, $2, $3, $4, $5, $6, $7, $8)"
static const char *const insert[] = {INSERT("outbox_0"), INSERT("outbox_1")};

/* Headers of dead letters and forwards; the one header of an event is not stored: name and value,
 * each with its length in 4 bytes before it; a null value has length -1. */
static void put_headers(struct saga_buf *out, const struct saga_out *o)
{
    out->n = 0;
    for (int i = 0; i < o->headers_n; i++) {
        const struct saga_header *h = &o->headers[i];
        int32_t name = (int32_t)strlen(h->name), value = h->value ? (int32_t)h->n : -1;
        saga_buf_add(out, &name, sizeof name);
        saga_buf_add(out, h->name, (size_t)name);
        saga_buf_add(out, &value, sizeof value);
        if (value > 0)
            saga_buf_add(out, h->value, (size_t)value);
    }
}

static void put_texts(struct saga_params *p, const struct saga_batch *b)
{
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < b->out_n; i++)
        saga_element_text(p, b->out[i].topic, -1);
    saga_param_array_end(p);
}

int saga_outbox_store(struct saga_pg *pg, const struct saga_batch *b, int slot,
                      struct saga_params *p, struct saga_err *err)
{
    struct saga_buf headers = {0};

    saga_params_reset(p);
    saga_param_time(p, b->now);
    saga_param_array(p, SAGA_OID_INT4);
    for (int i = 0; i < b->out_n; i++)
        saga_element_int4(p, b->out[i].lane);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_INT8);
    for (int i = 0; i < b->out_n; i++)
        saga_element_int(p, b->out[i].seq);
    saga_param_array_end(p);
    put_texts(p, b);
    saga_param_array(p, SAGA_OID_INT4);
    for (int i = 0; i < b->out_n; i++)
        saga_element_int4(p, b->out[i].partition);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_BYTEA); /* keys of dead letters are any bytes */
    for (int i = 0; i < b->out_n; i++)
        saga_element_text(p, b->out[i].key, b->out[i].key_n);
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_BYTEA);
    for (int i = 0; i < b->out_n; i++) {
        size_t n;
        const char *value = saga_out_value(&b->values, &b->out[i], &n);
        saga_element_text(p, value, (int64_t)n);
    }
    saga_param_array_end(p);
    saga_param_array(p, SAGA_OID_BYTEA);
    for (int i = 0; i < b->out_n; i++) {
        put_headers(&headers, &b->out[i]);
        saga_element_text(p, headers.n ? headers.at : NULL, (int64_t)headers.n);
    }
    saga_param_array_end(p);
    saga_buf_free(&headers);
    return saga_pg_send(pg, insert[slot], p, err);
}

/* ---- Reading back ---- */

/* Batches hold the rows of many lanes, and are large: those that matter are found by lane and seq
 * alone, newest first, and only their values are fetched. */
#define FIND(table)                                                                                \
    "select o.batch, (select min(u.seq) from unnest(o.lane, o.seq) u(lane, seq)"                   \
    "                  where u.lane = $1::bigint and u.seq > $2) as first"                         \
    "  from " table " o where o.batch < $3 order by o.batch desc limit 32"
static const char *const find[] = {FIND("outbox_0"), FIND("outbox_1")};

#define FETCH(table)                                                                               \
    "select u.seq, u.topic, u.partition, u.key, u.value, u.headers"                                \
    "  from " table " o, unnest(o.lane, o.seq, o.topic, o.partition, o.key, o.value, o.headers)"   \
    "       u(lane, seq, topic, partition, key, value, headers)"                                   \
    " where o.batch = any($3::bigint[]) and u.lane = $1::bigint and u.seq > $2 order by u.seq"
static const char *const fetch[] = {FETCH("outbox_0"), FETCH("outbox_1")};

enum { SLICE = 64 }; /* batches that are read at once: values are megabytes */

struct batches {
    int64_t *id;
    int n, cap;
    int64_t first; /* lowest seq found */
};

static void add(struct batches *found, int64_t batch, int64_t first)
{
    if (found->n == found->cap) {
        found->cap = found->cap ? found->cap * 2 : 32;
        found->id = saga_realloc(found->id, (size_t)found->cap * sizeof *found->id);
    }
    found->id[found->n++] = batch;
    if (first < found->first)
        found->first = first;
}

/* Which batches of a table hold rows of the lane above `above`: newest first, until the row after
 * `above` is found or the table ends. */
static int search(struct saga_pg *pg, int slot, int32_t lane, int64_t above, struct batches *found,
                  struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    int64_t before = INT64_MAX;
    int rc = 0, n;

    do {
        saga_params_reset(&p);
        saga_param_int(&p, lane);
        saga_param_int(&p, above);
        saga_param_int(&p, before);
        if ((rc = saga_pg_query(pg, find[slot], &p, &rows, err)) < 0)
            break;
        n = saga_rows_n(rows);
        for (int i = 0; i < n; i++) {
            before = saga_rows_int(rows, i, 0);
            if (!saga_rows_null(rows, i, 1))
                add(found, before, saga_rows_int(rows, i, 1));
        }
        saga_rows_free(rows);
    } while (n > 0 && found->first > above + 1);
    saga_params_free(&p);
    return rc;
}

static void read_headers(const char *at, int n, struct saga_arena *arena, struct saga_delivery *d)
{
    const char *end = at + n;
    struct saga_header *headers = NULL;

    for (; at < end; d->headers_n++) {
        int32_t name, value;
        struct saga_header *more =
            saga_arena_alloc(arena, (size_t)(d->headers_n + 1) * sizeof *more);
        if (headers)
            memcpy(more, headers, (size_t)d->headers_n * sizeof *more);
        headers = more;
        memcpy(&name, at, sizeof name);
        headers[d->headers_n].name = saga_arena_text(arena, at + sizeof name, (size_t)name);
        at += sizeof name + (size_t)name;
        memcpy(&value, at, sizeof value);
        at += sizeof value;
        headers[d->headers_n].value = value < 0 ? NULL : at;
        headers[d->headers_n].n = value < 0 ? 0 : (size_t)value;
        at += value < 0 ? 0 : value;
    }
    d->headers = headers;
}

/* The ids of an event of ours stand near the start of its value, and nothing that is text looks like
 * them: {"specversion":"1.0","id":"7.42.9" ... "previousid":"7.41.9". */
static const char id_member[] = "\"id\":\"", previous_member[] = "\"previousid\":\"";

static struct saga_id id_of(const struct saga_delivery *d, const char *before)
{
    const char *at = memmem(d->value, d->value_n, before, strlen(before));
    struct saga_id id = {0};
    int32_t lane;

    if (at) {
        at += strlen(before);
        const char *quote = memchr(at, '"', (size_t)(d->value + d->value_n - at));
        if (quote)
            saga_id_read(at, (size_t)(quote - at), &lane, &id);
    }
    return id;
}

static int send_again(struct saga_pg *pg, int slot, int32_t lane, int64_t above,
                      const struct batches *found, const char *own_topic, int64_t *expected,
                      void (*sent)(void *owner, const struct saga_delivery *d, struct saga_id own),
                      void *owner, struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_arena arena = {0};
    int rc, n, key, value, headers;

    saga_param_int(&p, lane);
    saga_param_int(&p, above);
    saga_param_array(&p, SAGA_OID_INT8);
    for (int i = 0; i < found->n; i++)
        saga_element_int(&p, found->id[i]);
    saga_param_array_end(&p);
    rc = saga_pg_query(pg, fetch[slot], &p, &rows, err);
    n = rc < 0 ? 0 : saga_rows_n(rows);
    for (int i = 0; i < n && rc >= 0; i++) {
        struct saga_delivery d = {.lane = lane,
                                  .seq = saga_rows_int(rows, i, 0),
                                  .topic = saga_rows_text(rows, i, 1),
                                  .partition = (int32_t)saga_rows_int(rows, i, 2)};
        struct saga_id own = {0};
        d.key = saga_rows_bytes(rows, i, 3, &key);
        d.key_n = key < 0 ? 0 : (size_t)key;
        d.value = saga_rows_bytes(rows, i, 4, &value);
        d.value_n = value < 0 ? 0 : (size_t)value;
        const char *h = saga_rows_bytes(rows, i, 5, &headers);
        if (headers > 0)
            read_headers(h, headers, &arena, &d);
        if (!strcmp(d.topic, own_topic)) {
            d.topic = own_topic; /* outlives the result */
            own = id_of(&d, id_member);
        }
        if (d.seq != (*expected)++)
            rc = saga_err(err, SAGA_FATAL, "outbox of lane %d: row %lld is missing", lane,
                          (long long)*expected - 1);
        else
            sent(owner, &d, own);
    }
    saga_rows_free(rows);
    saga_params_free(&p);
    saga_arena_free(&arena);
    return rc < 0 ? rc : n;
}

int saga_outbox_read(struct saga_pg *pg, int32_t lane, int64_t above, int64_t last,
                     const char *own_topic,
                     void (*sent)(void *owner, const struct saga_delivery *d, struct saga_id own),
                     void *owner, struct saga_err *err)
{
    struct batches found[2] = {{.first = INT64_MAX}, {.first = INT64_MAX}};
    int64_t expected = above + 1;
    int rc = 0, older = 0;

    if (above >= last)
        return 0;
    for (int slot = 0; slot < 2 && rc >= 0; slot++)
        rc = search(pg, slot, lane, above, &found[slot], err);
    older = found[1].first < found[0].first; /* the lane's rows ascend within and across tables */
    for (int i = 0; i < 2 && rc >= 0; i++) {
        int slot = i == 0 ? older : !older;
        for (int left = found[slot].n; left > 0 && rc >= 0; left -= SLICE) { /* oldest first */
            int from = left > SLICE ? left - SLICE : 0;
            struct batches slice = {.id = found[slot].id + from, .n = left - from};
            rc = send_again(pg, slot, lane, above, &slice, own_topic, &expected, sent, owner, err);
        }
    }
    free(found[0].id), free(found[1].id);
    if (rc >= 0 && expected != last + 1)
        rc = saga_err(err, SAGA_FATAL, "outbox of lane %d: rows %lld to %lld are missing", lane,
                      (long long)expected, (long long)last);
    return rc < 0 ? rc : (int)(expected - above - 1);
}

/* ---- Publishing all again ---- */

#define OLDEST(table)                                                                              \
    "select u.seq, substring(u.value from 1 for 800)"                                              \
    "  from " table " o, unnest(o.lane, o.seq, o.topic, o.value) u(lane, seq, topic, value)"       \
    " where u.lane = $1::bigint and u.topic = $2 order by o.batch, u.seq limit 1"
static const char *const oldest_of[] = {OLDEST("outbox_0"), OLDEST("outbox_1")};

int saga_outbox_oldest(struct saga_pg *pg, int32_t lane, const char *own_topic,
                       struct saga_id *oldest, struct saga_id *previous, struct saga_err *err)
{
    struct saga_params p = {0};
    int rc = 0;

    *oldest = *previous = (struct saga_id){0};
    saga_param_int(&p, lane);
    saga_param_text(&p, own_topic);
    for (int slot = 0; slot < 2 && rc >= 0; slot++) {
        struct saga_rows *rows = NULL;
        rc = saga_pg_query(pg, oldest_of[slot], &p, &rows, err);
        if (rc >= 0 && saga_rows_n(rows) &&
            (!oldest->seq || saga_rows_int(rows, 0, 0) < oldest->seq)) {
            struct saga_delivery d = {0};
            int n;
            d.value = saga_rows_bytes(rows, 0, 1, &n);
            d.value_n = n < 0 ? 0 : (size_t)n;
            *oldest = id_of(&d, id_member);
            *previous = id_of(&d, previous_member);
        }
        saga_rows_free(rows);
    }
    saga_params_free(&p);
    return rc < 0 ? rc : oldest->seq > 0;
}

static const char sql_lock[] = "select term from lane where lane = $1::bigint for no key update";

/* Never forward: below the oldest event there may be forwards and dead letters that are not sent. */
static const char sql_set_back[] =
    "update lane"
    "   set published = least(published, $2), published_offset = nullif($3, -1), published_id = $4,"
    "       term = case when $5 then " SAGA_TERM_RAISED " else term end"
    " where lane = $1::bigint returning term, published";

/* No event of its own is there: what is not sent are forwards and dead letters. */
static const char sql_raise[] =
    "update lane set term = " SAGA_TERM_RAISED
    " where lane = $1::bigint and published < last_seq returning term, published";

static int raise_unsent(struct saga_pg *pg, int32_t lane, struct saga_outbox_back *back,
                        struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;

    saga_param_int(&p, lane);
    int rc = saga_pg_query(pg, sql_raise, &p, &rows, err);
    int n = rc < 0 ? 0 : saga_rows_n(rows);
    if (n) {
        back->term = saga_rows_int(rows, 0, 0);
        back->published = saga_rows_int(rows, 0, 1);
    }
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc < 0 ? rc : n;
}

static int set_back(struct saga_pg *pg, int32_t lane, const char *own_topic, int64_t term,
                    struct saga_outbox_back *back, struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct saga_id oldest, previous;
    char text[SAGA_ID_TEXT];
    int rc;

    saga_param_int(&p, lane);
    rc = saga_pg_query(pg, sql_lock, &p, &rows, err);
    bool ours = rc >= 0 && saga_rows_n(rows) && (!term || saga_rows_int(rows, 0, 0) == term);
    saga_rows_free(rows);
    if (rc >= 0 && ours)
        rc = saga_outbox_oldest(pg, lane, own_topic, &oldest, &previous, err);
    if (rc == 0 && ours && !term) {
        saga_params_free(&p);
        return raise_unsent(pg, lane, back, err);
    }
    if (rc <= 0 || !ours || (back->oldest.seq && !saga_id_same(oldest, back->oldest))) {
        saga_params_free(&p);
        return rc < 0 ? rc : 0;
    }
    saga_param_int(&p, oldest.seq - !saga_id_same(oldest, back->id));
    saga_param_int(&p, back->offset);
    saga_id_write(lane, back->id, text);
    saga_param_text(&p, back->offset < 0 ? NULL : text);
    saga_param_bool(&p, !term);
    rc = saga_pg_query(pg, sql_set_back, &p, &rows, err);
    if (rc >= 0) {
        back->term = saga_rows_int(rows, 0, 0);
        back->published = saga_rows_int(rows, 0, 1);
        saga_rows_free(rows);
    }
    saga_params_free(&p);
    return rc < 0 ? rc : 1;
}

int saga_outbox_set_back(struct saga_pg *pg, int32_t lane, const char *own_topic, int64_t term,
                         struct saga_outbox_back *back, struct saga_err *err)
{
    struct saga_err ignored = {0};
    int rc = saga_pg_connect(pg, err);

    if (rc >= 0 && (rc = saga_pg_script(pg, "begin", err)) >= 0 &&
        (rc = set_back(pg, lane, own_topic, term, back, err)) > 0) {
        int done = saga_pg_script(pg, "commit", err);
        return done < 0 ? done : 1;
    }
    if (saga_pg_connected(pg))
        saga_pg_script(pg, "rollback", &ignored);
    return rc;
}

/* ---- Rotation (4.8) ---- */

static const char state[] =
    "select slot, (extract(epoch from clock_timestamp() - since) * 1000000)::bigint,"
    "       pg_table_size(case slot when 0 then 'outbox_0' else 'outbox_1' end::regclass)"
    "  from outbox_current";

/* The other table holds what the lanes had written when it was left (marks), and the rows of batches
 * that had begun by then and wrote later: those stand behind the newest of then (batch), as one that had
 * written, and not committed, would have kept the tables from turning (share mode). It is looked at again
 * whether it is still the other one: another process may have turned the tables while we waited for the
 * lock. */
#define ROTATE(present, other, number)                                                             \
    "begin; set local lock_timeout = '200ms'; lock table " other " in access exclusive mode;"      \
    " lock table " present " in share mode;"                                                       \
    " do $$ begin"                                                                                 \
    "   if exists (select from outbox_current where slot = " number ")"                            \
    "      or exists (select from lane l, outbox_current c"                                        \
    "                  where l.published < c.marks[l.lane + 1])"                                   \
    "      or exists (select from outbox_current c, " other " o,"                                  \
    "                             unnest(o.lane, o.seq) u(lane, seq)"                              \
    "                   join lane l on l.lane = u.lane"                                            \
    "                  where o.batch > c.batch and u.seq > l.published)"                           \
    "   then raise exception 'unpublished'; end if; end $$;"                                       \
    " truncate " other ";"                                                                         \
    " update outbox_current set slot = " number ", since = clock_timestamp(),"                     \
    "   marks = (select array_agg(coalesce(l.last_seq, 0) order by n)"                             \
    "              from generate_series(0, (select max(lane) from lane)) n"                        \
    "              left join lane l on l.lane = n),"                                               \
    "   batch = (select coalesce(max(batch), 0) from " present ")"                                 \
    " where slot <> " number "; commit"
static const char *const rotate[] = {ROTATE("outbox_0", "outbox_1", "1"),
                                     ROTATE("outbox_1", "outbox_0", "0")};

int saga_outbox_rotate(struct saga_pg *pg, int64_t keep, int64_t bytes,
                       struct saga_outbox_table *present, struct saga_err *err)
{
    struct saga_rows *rows;
    int rc = saga_pg_query(pg, state, NULL, &rows, err);
    int slot;

    if (rc < 0)
        return rc;
    slot = (int)saga_rows_int(rows, 0, 0);
    present->age = saga_rows_int(rows, 0, 1);
    present->bytes = saga_rows_int(rows, 0, 2);
    saga_rows_free(rows);
    if (present->age <= keep && present->bytes <= bytes)
        return 0;
    SAGA_FAILPOINT(rotating);
    if (saga_pg_script(pg, rotate[slot], err) == 0) {
        SAGA_FAILPOINT(rotated);
        return 1;
    }
    if (!saga_pg_connected(pg))
        return SAGA_RETRY;
    err->code = 0; /* held, or not all published: later */
    return saga_pg_script(pg, "rollback", err);
}
