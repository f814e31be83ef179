/* The simulated provider: what it does is written in the token (RULES.md), and what it did in its
 * ledger, which stands for another company's books.
 *
 * All calls that wait together are one transaction of one round trip, on a connection of the
 * caller's own. Charges asked for the first time are plain inserts. Should one of those keys be there
 * all the same, or a call be a repeated one: an insert for each, which does nothing where the key is
 * there. Whoever asks second, on whatever thread, waits in that insert for the first's commit and is
 * answered from the row, by a further round trip. Keys are inserted in their order, so that no two
 * wait for each other.
 * It keeps keys for ever, in books that are ordered by them: to look one up before is to do the same.
 * Answers come after it, the slow ones last, with no transaction open. If anything fails the
 * outcome is not known, and the same key will tell. */
#include "provider.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "log.h"
#include "payment.h"
#include "pg.h"

#define MS INT64_C(1000)

const char *payment_database = "";
const char *payment_schema = "payment_svc";

/* clang-format off */
static const char session[] = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off";

static const char book_new_charges[] =
    "insert into ledger (key, amount, reason)"
    " select unnest($1::text[]), unnest($2::bigint[]), unnest($3::text[])";

static const char book_charges[] =
    "insert into ledger (key, amount, reason)"
    " select unnest($1::text[]), unnest($2::bigint[]), unnest($3::text[])"
    " on conflict (key) do nothing"
    " returning key, reason";

/* Of what was charged, so a refund without a charge is not in the books. $3: how often to refuse. */
static const char book_refunds[] =
    "insert into ledger (key, amount, refusals, reason)"
    " select n.key, c.amount, greatest(n.refusals - 1, 0),"
    "        case when n.refusals > 0 then 'refused' end"
    "   from unnest($1::text[], $2::text[], $3::bigint[]) n(key, charge, refusals)"
    "   join ledger c on c.key = n.charge and c.reason is null"
    "  order by n.key collate \"C\""
    " on conflict (key) do update"
    "    set refusals = greatest(ledger.refusals - 1, 0),"
    "        reason = case when ledger.refusals > 0 then ledger.reason end"
    "  where ledger.reason is not null"
    " returning key, reason";

static const char look_up[] =
    "select key, reason"
    "  from ledger"
    " where key = any($1)";
/* clang-format on */

/* ---- Tokens ---- */

struct behaviour {
    const char *declined; /* reason, or NULL */
    bool unknown_first;   /* the answer to the first call is lost */
    int64_t slow;         /* microseconds until the first answer */
    int64_t refusals;     /* of a refund */
};

static const struct {
    const char *token;
    struct behaviour behaviour;
} tokens[] = {{"tok_ok", {0}},
              {"tok_declined", {.declined = "declined"}},
              {"tok_insufficient_funds", {.declined = "insufficient_funds"}},
              {"tok_expired", {.declined = "expired"}},
              {"tok_unknown_once", {.unknown_first = true}},
              {"tok_unknown_declined", {.declined = "declined", .unknown_first = true}}};

/* "<prefix>250" -> 250. -> false: another token */
static bool number_after(const char *token, const char *prefix, int64_t *n)
{
    size_t length = strlen(prefix);
    const char *digits = token + length;

    if (strncmp(token, prefix, length) != 0)
        return false;
    *n = strtol(digits, NULL, 10);
    return *digits && strlen(digits) <= 9 && !digits[strspn(digits, "0123456789")];
}

static struct behaviour behaviour_of(const char *token)
{
    int64_t n;

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (strcmp(tokens[i].token, token) == 0)
            return tokens[i].behaviour;
    if (number_after(token, "tok_slow_", &n))
        return (struct behaviour){.slow = n * MS};
    if (number_after(token, "tok_refund_refused_", &n))
        return (struct behaviour){.refusals = n};
    return (struct behaviour){.declined = "unknown_token"};
}

/* ---- Books ---- */

/* A call on its way through the books. */
struct item {
    const struct saga_call *call;
    struct behaviour behaviour;
    char key[ID_MAX + 8];                        /* "charge:" and the order */
    enum { ASKED, BOOKED, FOUND, NOT_FOUND } is; /* booked: by this very call */
    char reason[32];                             /* "": the money has moved */
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->key, ((const struct item *)b)->key);
}

static int by_slowness(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return (x->behaviour.slow > y->behaviour.slow) - (x->behaviour.slow < y->behaviour.slow);
}

static void take(const struct saga_rows *rows, struct item *items, int n, int is)
{
    for (int i = 0; i < saga_rows_n(rows); i++) {
        struct item wanted, *item;
        const char *reason = saga_rows_text(rows, i, 1);
        snprintf(wanted.key, sizeof wanted.key, "%s", saga_rows_text(rows, i, 0));
        item = bsearch(&wanted, items, (size_t)n, sizeof *items, by_key);
        if (!item)
            continue;
        item->is = is;
        snprintf(item->reason, sizeof item->reason, "%s", reason ? reason : "");
    }
}

static void put_keys(struct saga_params *p, const struct item *items, int n)
{
    saga_param_array(p, SAGA_OID_TEXT);
    for (int i = 0; i < n; i++)
        if (items[i].is == ASKED)
            saga_element_text(p, items[i].key, -1);
    saga_param_array_end(p);
}

static int send_charges(struct saga_pg *pg, const char *sql, const struct item *items, int n,
                        struct saga_err *err)
{
    struct saga_params p = {0};

    put_keys(&p, items, n);
    saga_param_array(&p, SAGA_OID_INT8);
    for (int i = 0; i < n; i++)
        saga_element_int(&p, ((const struct charge *)items[i].call->data)->amount);
    saga_param_array_end(&p);
    saga_param_array(&p, SAGA_OID_TEXT);
    for (int i = 0; i < n; i++)
        saga_element_text(&p, items[i].behaviour.declined, -1);
    saga_param_array_end(&p);
    int rc = saga_pg_send(pg, sql, &p, err);
    saga_params_free(&p);
    return rc;
}

static int send_refunds(struct saga_pg *pg, const struct item *items, int n, struct saga_err *err)
{
    struct saga_params p = {0};
    char key[sizeof items->key];

    put_keys(&p, items, n);
    saga_param_array(&p, SAGA_OID_TEXT);
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "charge:%s", items[i].call->key);
        saga_element_text(&p, key, -1);
    }
    saga_param_array_end(&p);
    saga_param_array(&p, SAGA_OID_INT8);
    for (int i = 0; i < n; i++)
        saga_element_int(&p, items[i].behaviour.refusals);
    saga_param_array_end(&p);
    int rc = saga_pg_send(pg, book_refunds, &p, err);
    saga_params_free(&p);
    return rc;
}

static int end(struct saga_pg *pg, struct saga_err *err)
{
    int rc = saga_pg_sync(pg, err);

    return rc < 0 ? rc : saga_pg_wait(pg, err);
}

/* Only charges, and none has been asked for before as far as the row knows. */
static bool all_new(const struct item *items, int n)
{
    for (int i = 0; i < n; i++)
        if (items[i].call->call != &charge ||
            ((const struct charge *)items[i].call->data)->tries > 1)
            return false;
    return true;
}

static int book_new(struct saga_pg *pg, struct item *items, int n, struct saga_err *err)
{
    int rc = send_charges(pg, book_new_charges, items, n, err);

    if (rc < 0 || (rc = end(pg, err)) < 0)
        return rc;
    for (int i = 0; i < n; i++) {
        const char *declined = items[i].behaviour.declined;
        items[i].is = BOOKED;
        snprintf(items[i].reason, sizeof items[i].reason, "%s", declined ? declined : "");
    }
    return 0;
}

/* Charges stand before refunds, as in the order of keys. */
static int book(struct saga_pg *pg, struct item *items, int n, struct saga_err *err)
{
    int charges = 0, sent = 0, rc = 0;

    while (charges < n && items[charges].call->call == &charge)
        charges++;
    if (charges)
        rc = send_charges(pg, book_charges, items, charges, err);
    if (rc == 0 && charges < n)
        rc = send_refunds(pg, items + charges, n - charges, err);
    if (rc < 0 || (rc = end(pg, err)) < 0)
        return rc;
    if (charges)
        take(saga_pg_result(pg, sent++), items, n, BOOKED);
    if (charges < n)
        take(saga_pg_result(pg, sent), items, n, BOOKED);
    return 0;
}

/* What was asked before, answered from the books as they are now. */
static int find(struct saga_pg *pg, struct item *items, int n, struct saga_err *err)
{
    struct saga_params p = {0};
    int asked = 0, rc = 0;

    for (int i = 0; i < n; i++)
        asked += items[i].is == ASKED;
    put_keys(&p, items, n);
    if (asked && (rc = saga_pg_send(pg, look_up, &p, err)) == 0 && (rc = end(pg, err)) == 0) {
        take(saga_pg_result(pg, 0), items, n, FOUND);
        for (int i = 0; i < n; i++)
            if (items[i].is == ASKED)
                items[i].is = NOT_FOUND;
    }
    saga_params_free(&p);
    return rc;
}

/* ---- Answers ---- */

static void unknown(const struct item *item, const char *reason)
{
    payment_answer(item->call, item->call->call == &charge ? &charge_unknown : &refund_unknown,
                   &(struct answer){.reason = reason});
}

static void tell(const struct item *item)
{
    bool charging = item->call->call == &charge, first = charging && item->is == BOOKED;
    char ref[sizeof item->key + 4];

    snprintf(ref, sizeof ref, "sim-%s", item->key);
    if (item->is == ASKED)
        unknown(item, "the provider cannot be reached");
    else if (first &&
             (item->behaviour.unknown_first || item->behaviour.slow > payment_call_timeout))
        unknown(item, "timeout");
    else if (item->is == NOT_FOUND)
        payment_answer(item->call, &refund_refused, &(struct answer){.reason = "not_charged"});
    else if (!*item->reason)
        payment_answer(item->call, charging ? &charge_succeeded : &refund_succeeded,
                       &(struct answer){.ref = ref});
    else
        payment_answer(item->call, charging ? &charge_declined : &refund_refused,
                       &(struct answer){.reason = item->reason});
}

/* Until us after start, but no longer than a caller waits for an answer. */
static void pause_until(const struct timespec *start, int64_t us)
{
    struct timespec until = *start;

    if (us > payment_call_timeout)
        us = payment_call_timeout;
    until.tv_sec += us / (1000 * MS);
    until.tv_nsec += us % (1000 * MS) * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* The callers' threads end with the process, and so do their connections. */
static struct saga_pg *connection(void)
{
    static _Thread_local struct saga_pg *pg;

    if (!pg) {
        pg = saga_pg_new(payment_database, "payment-svc", payment_schema);
        saga_pg_session(pg, session);
        saga_pg_patience(pg, (int)(payment_call_timeout / 1000)); /* a stopped one may hold a key */
    }
    return pg;
}

static void call(const struct saga_call *calls, int n)
{
    struct item *items = saga_alloc((size_t)n * sizeof *items);
    struct saga_pg *pg = connection();
    struct saga_err err = {0};
    struct timespec start;
    int rc;

    SAGA_FAILPOINT(call_begun);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < n; i++) {
        items[i] =
            (struct item){&calls[i], behaviour_of(((const struct charge *)calls[i].data)->token)};
        snprintf(items[i].key, sizeof items[i].key, "%s:%s", calls[i].call->type, calls[i].key);
    }
    qsort(items, (size_t)n, sizeof *items, by_key);
    rc = all_new(items, n) ? book_new(pg, items, n, &err) : book(pg, items, n, &err);
    if (rc <
        0) { /* a key was there, or the connection had died since its last use: the same keys */
        err.code = 0;
        rc = book(pg, items, n, &err);
    }
    SAGA_FAILPOINT(call_booked);
    if (rc < 0 || find(pg, items, n, &err) < 0)
        saga_log_text(SAGA_WARN, "the simulated provider's books", err.text);
    for (int i = 0; i < n; i++) /* only a first answer to a charge is slow */
        if (items[i].is != BOOKED || items[i].call->call != &charge)
            items[i].behaviour.slow = 0;
    qsort(items, (size_t)n, sizeof *items, by_slowness);
    for (int i = 0; i < n; i++) {
        if (items[i].behaviour.slow)
            pause_until(&start, items[i].behaviour.slow);
        tell(&items[i]);
    }
    free(items);
}

const struct payment_provider provider_simulated = {"simulated", INT64_MAX, call};
