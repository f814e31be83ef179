/* A payment provider over HTTP, for tests. See bank.h. */
#include "bank.h"

#include <jansson.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "test.h"

enum { BODY_MAX = 4096, HUGE_N = 65536, CONNECTIONS = 2000, STACK = 256 * 1024 };

/* What is known of a payment's charge or refund. */
struct item {
    struct item *next;
    enum bank_kind kind;
    char payment_id[65], order[65], key[80], token[65], what[16], ref[32];
    long long amount;
    int64_t since; /* first use of the key, us */
    bool no, in_flight, applied;
    int n; /* of the token */
    int answered;
};

struct bank {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    pthread_cond_t stop; /* or let_go */
    char url[64], bearer[80];
    int64_t keeps_keys;
    int down;
    bool stopping, let_go;
    struct item *items;
    struct bank_entry *ledger;
    int n;
    struct bank_counts counts;
};

struct upload {
    char body[BODY_MAX];
    size_t n;
};

/* ---- Tokens ---- */

static bool starts(const char **at, const char *with)
{
    size_t n = strlen(with);
    bool does = strncmp(*at, with, n) == 0;

    *at += does ? n : 0;
    return does;
}

static void behave(struct item *i)
{
    const char *at = i->token;
    bool for_refund, known = starts(&at, "tok_");

    for_refund = starts(&at, "refund_");
    snprintf(i->what, sizeof i->what, "ok");
    if (for_refund != (i->kind == BANK_REFUND))
        return;
    i->no = starts(&at, "no_") || !known || strcmp(at, "declined") == 0;
    snprintf(i->what, sizeof i->what, "%.*s", (int)strcspn(at, "_"), at);
    at += strcspn(at, "_");
    i->n = *at ? atoi(at + 1) : 0;
}

/* ---- Answers ---- */

struct cut {
    char body[256];
    size_t n;
};

static ssize_t read_half(void *cls, uint64_t at, char *out, size_t max)
{
    const struct cut *cut = cls;
    size_t half = cut->n / 2;

    if (at >= half)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = half - at < max ? half - at : max;
    memcpy(out, cut->body + at, n);
    return (ssize_t)n;
}

static enum MHD_Result put(struct MHD_Connection *c, int status, const char *body, const char *to)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(body), (char *)body, MHD_RESPMEM_MUST_COPY);

    MHD_add_response_header(r, "Content-Type", "application/json");
    if (to)
        MHD_add_response_header(r, "Location", to);
    enum MHD_Result rc = MHD_queue_response(c, (unsigned)status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result put_half(struct MHD_Connection *c, const char *body)
{
    struct cut *cut = calloc(1, sizeof *cut);

    snprintf(cut->body, sizeof cut->body, "%s", body);
    cut->n = strlen(cut->body);
    struct MHD_Response *r =
        MHD_create_response_from_callback(cut->n, sizeof cut->body, read_half, cut, free);
    enum MHD_Result rc = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result put_huge(struct MHD_Connection *c, const char *body)
{
    char *all = malloc(HUGE_N + 512);

    memset(all, ' ', HUGE_N);
    snprintf(all + HUGE_N, 512, "%s", body);
    enum MHD_Result rc = put(c, 200, all, NULL);
    free(all);
    return rc;
}

/* An answer, as good or bad as the token says; without the lock. i is a copy. */
static enum MHD_Result reply(const struct bank *b, struct MHD_Connection *c, struct item *i)
{
    char body[256], to[100];
    bool spoilt = i->answered <= i->n;
    int status = i->no ? 402 : 200;

    if (spoilt && strcmp(i->what, "other") == 0)
        snprintf(i->payment_id, sizeof i->payment_id, "pay-other");
    if (i->no)
        snprintf(body, sizeof body,
                 "{\"payment_id\":\"%s\",\"status\":\"%s\",\"reason\":\"no_money\"}", i->payment_id,
                 i->kind == BANK_CHARGE ? "declined" : "refused");
    else
        snprintf(body, sizeof body,
                 "{\"payment_id\":\"%s\",\"status\":\"succeeded\",\"id\":\"%s\",\"amount\":%lld}",
                 i->payment_id, i->ref, i->amount);
    if (!spoilt)
        return put(c, status, body, NULL);
    if (strcmp(i->what, "drop") == 0)
        return MHD_NO;
    if (strcmp(i->what, "cut") == 0)
        return put_half(c, body);
    if (strcmp(i->what, "500") == 0)
        return put(c, 500, body, NULL);
    if (strcmp(i->what, "html") == 0)
        return put(c, 200, "<html><body>Welcome!</body></html>", NULL);
    if (strcmp(i->what, "huge") == 0)
        return put_huge(c, body);
    if (strcmp(i->what, "redirect") == 0) {
        snprintf(to, sizeof to, "%s/elsewhere", b->url);
        return put(c, 307, body, to);
    }
    if (strcmp(i->what, "json") == 0)
        body[strlen(body) - 1] = '\0';
    return put(c, status, body, NULL);
}

/* ---- Books; with the lock ---- */

static struct item *find(struct bank *b, enum bank_kind kind, const char *payment_id)
{
    for (struct item *i = b->items; i; i = i->next)
        if (i->kind == kind && strcmp(i->payment_id, payment_id) == 0)
            return i;
    return NULL;
}

static void enter(struct bank *b, const struct item *i)
{
    b->ledger = realloc(b->ledger, (size_t)(b->n + 1) * sizeof *b->ledger);
    struct bank_entry *e = &b->ledger[b->n++];
    *e = (struct bank_entry){.kind = i->kind, .amount = i->amount, .declined = i->no};
    snprintf(e->order, sizeof e->order, "%s", i->order);
    snprintf(e->payment_id, sizeof e->payment_id, "%s", i->payment_id);
}

static void sleep_unlocked(struct bank *b, int ms)
{
    int64_t until;
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    until = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + ms;
    t = (struct timespec){until / 1000, until % 1000 * 1000000};
    while (!b->stopping && pthread_cond_timedwait(&b->stop, &b->lock, &t) == 0)
        ;
}

static void hold_unlocked(struct bank *b)
{
    while (!b->stopping && !b->let_go)
        pthread_cond_wait(&b->stop, &b->lock);
}

/* The money moves, or is declined: each time that this runs. */
static void apply(struct bank *b, struct item *i)
{
    i->in_flight = true;
    if (strcmp(i->what, "slow") == 0)
        sleep_unlocked(b, i->n);
    if (strcmp(i->what, "held") == 0)
        hold_unlocked(b);
    i->in_flight = false;
    i->applied = true;
    i->since = test_now();
    snprintf(i->ref, sizeof i->ref, "%s-%d", i->kind == BANK_CHARGE ? "ch" : "re", b->n);
    enter(b, i);
}

/* ---- Requests; with the lock ---- */

static const char *text_of(json_t *body, const char *name)
{
    const char *value = json_string_value(json_object_get(body, name));

    return value ? value : "";
}

/* The first request about a payment's charge or refund makes it: a refund does what its charge's token
 * says. */
static struct item *item_of(struct bank *b, enum bank_kind kind, json_t *body, const char *key,
                            const char *token)
{
    struct item *i = find(b, kind, text_of(body, "payment_id"));

    if (i) {
        b->counts.other_keys += strcmp(i->key, key) != 0;
        return i;
    }
    for (struct item *other = b->items; other; other = other->next)
        b->counts.other_keys += other->kind == kind && strcmp(other->key, key) == 0;
    i = calloc(1, sizeof *i);
    i->kind = kind;
    snprintf(i->payment_id, sizeof i->payment_id, "%s", text_of(body, "payment_id"));
    snprintf(i->order, sizeof i->order, "%s", text_of(body, "order_id"));
    snprintf(i->token, sizeof i->token, "%s", token);
    snprintf(i->key, sizeof i->key, "%s", key);
    i->amount = json_integer_value(json_object_get(body, "amount"));
    behave(i);
    i->next = b->items;
    b->items = i;
    return i;
}

/* The key has been used, and is remembered: it gets the answer that it got. */
static bool is_known(struct bank *b, const struct item *i, const char *key)
{
    bool remembered = test_now() - i->since < b->keeps_keys;

    if (!i->applied || strcmp(i->key, key) != 0)
        return false;
    b->counts.forgotten += !remembered;
    return remembered;
}

/* -> 0: *out is to be answered; or a status */
static int ask(struct bank *b, enum bank_kind kind, json_t *body, const char *key, struct item *out)
{
    const struct item *charge = find(b, BANK_CHARGE, text_of(body, "payment_id"));
    const char *token = kind == BANK_CHARGE ? text_of(body, "token") : charge ? charge->token : "";

    if (!key || !*token || !*text_of(body, "payment_id") || !*text_of(body, "order_id"))
        return 400;
    if (kind == BANK_REFUND && (!charge->applied || charge->no))
        return 422;
    struct item *i = item_of(b, kind, body, key, token);
    if (i->in_flight)
        return 409;
    i->answered++;
    bool refused = strcmp(i->what, "refused") == 0 && i->answered <= i->n;
    if (!refused && !is_known(b, i, key))
        apply(b, i);
    *out = *i;
    out->no |= refused;
    return 0;
}

static int look_up(struct bank *b, enum bank_kind kind, const char *payment_id, struct item *out)
{
    struct item *i = find(b, kind, payment_id);

    b->counts.looked_up++;
    if (i && i->in_flight)
        return 409;
    if (!i || !i->applied) {
        b->counts.not_found++;
        snprintf(out->payment_id, sizeof out->payment_id, "%s", payment_id);
        return 404;
    }
    i->answered++;
    *out = *i;
    return 0;
}

/* ---- The server ---- */

static int work(struct bank *b, struct MHD_Connection *c, const char *url, const char *method,
                const struct upload *up, struct item *out)
{
    const char *bearer = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    const char *key = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Idempotency-Key");
    bool asking = strcmp(method, "POST") == 0;
    enum bank_kind kind = starts(&url, "/charges") ? BANK_CHARGE : BANK_REFUND;
    int status = 404;

    b->counts.requests++;
    b->counts.redirected += strcmp(url, "/elsewhere") == 0;
    if (!bearer || strcmp(bearer, b->bearer) != 0) {
        b->counts.unauthorized++;
        return 401;
    }
    if (b->down)
        return b->down;
    if (kind == BANK_REFUND && !starts(&url, "/refunds"))
        return 404;
    if (asking && !*url) {
        json_t *body = json_loadb(up->body, up->n, 0, NULL);
        status = ask(b, kind, body, key, out);
        json_decref(body);
    } else if (!asking && *url == '/') {
        status = look_up(b, kind, url + 1, out);
    }
    b->counts.conflicts += status == 409;
    return status;
}

static enum MHD_Result handle(struct bank *b, struct MHD_Connection *c, const char *url,
                              const char *method, const struct upload *up)
{
    struct item out = {0};
    char body[160];

    pthread_mutex_lock(&b->lock);
    if (++b->counts.in_flight > b->counts.most_in_flight)
        b->counts.most_in_flight = b->counts.in_flight;
    int status = work(b, c, url, method, up, &out);
    b->counts.in_flight--;
    pthread_mutex_unlock(&b->lock);
    if (status == 0)
        return reply(b, c, &out);
    snprintf(body, sizeof body, "{\"payment_id\":\"%s\",\"status\":\"%s\"}", out.payment_id,
             status == 404   ? "not_found"
             : status == 409 ? "pending"
                             : "error");
    return put(c, status, body, NULL);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **con)
{
    struct upload *up = *con;

    (void)version;
    if (!up) {
        *con = calloc(1, sizeof *up);
        return *con ? MHD_YES : MHD_NO;
    }
    if (*n == 0)
        return handle(cls, c, url, method, up);
    size_t take = *n < BODY_MAX - up->n ? *n : BODY_MAX - up->n;
    memcpy(up->body + up->n, data, take);
    up->n += take;
    *n = 0;
    return MHD_YES;
}

static void on_end(void *cls, struct MHD_Connection *c, void **con,
                   enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)c;
    (void)code;
    free(*con);
    *con = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *c, void **unused,
                          enum MHD_ConnectionNotificationCode code)
{
    struct bank *b = cls;

    (void)c;
    (void)unused;
    pthread_mutex_lock(&b->lock);
    b->counts.connections += code == MHD_CONNECTION_NOTIFY_STARTED;
    pthread_mutex_unlock(&b->lock);
}

struct bank *bank_new_tls(const char *token, int64_t keeps_keys_us, const char *key,
                          const char *certificate)
{
    struct bank *b = calloc(1, sizeof *b);
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key},
                                   {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)certificate},
                                   {MHD_OPTION_END, 0, NULL}};

    MUST(b, "out of memory");
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->stop, NULL);
    snprintf(b->bearer, sizeof b->bearer, "Bearer %s", token);
    b->keeps_keys = keeps_keys_us;
    b->daemon =
        MHD_start_daemon(key ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, on_request, b,
                         MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_NOTIFY_CONNECTION,
                         on_connection, b, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                         MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK, MHD_OPTION_SOCK_ADDR,
                         (struct sockaddr *)&(struct sockaddr_in){
                             .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                         MHD_OPTION_ARRAY, key ? tls : &tls[2], MHD_OPTION_END);
    MUST(b->daemon, "the provider does not start");
    pthread_mutex_lock(&b->lock); /* its threads run */
    snprintf(b->url, sizeof b->url, "%s:%d", key ? "https://localhost" : "http://127.0.0.1",
             MHD_get_daemon_info(b->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    pthread_mutex_unlock(&b->lock);
    return b;
}

struct bank *bank_new(const char *token, int64_t keeps_keys_us)
{
    return bank_new_tls(token, keeps_keys_us, NULL, NULL);
}

void bank_free(struct bank *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->stop);
    pthread_mutex_unlock(&b->lock);
    MHD_stop_daemon(b->daemon);
    for (struct item *i = b->items, *next; i; i = next) {
        next = i->next;
        free(i);
    }
    free(b->ledger);
    free(b);
}

const char *bank_url(const struct bank *b)
{
    return b->url;
}

void bank_down(struct bank *b, int status)
{
    pthread_mutex_lock(&b->lock);
    b->down = status;
    pthread_mutex_unlock(&b->lock);
}

void bank_let_go(struct bank *b)
{
    pthread_mutex_lock(&b->lock);
    b->let_go = true;
    pthread_cond_broadcast(&b->stop);
    pthread_mutex_unlock(&b->lock);
}

void bank_keep_keys(struct bank *b, int64_t us)
{
    pthread_mutex_lock(&b->lock);
    b->keeps_keys = us;
    pthread_mutex_unlock(&b->lock);
}

int bank_entries(struct bank *b, struct bank_entry **copy)
{
    pthread_mutex_lock(&b->lock);
    int n = b->n;
    *copy = calloc((size_t)n + 1, sizeof **copy);
    if (n)
        memcpy(*copy, b->ledger, (size_t)n * sizeof **copy);
    pthread_mutex_unlock(&b->lock);
    return n;
}

void bank_begin_count(struct bank *b)
{
    pthread_mutex_lock(&b->lock);
    b->counts.most_in_flight = b->counts.connections = 0;
    pthread_mutex_unlock(&b->lock);
}

struct bank_counts bank_counts(struct bank *b)
{
    pthread_mutex_lock(&b->lock);
    struct bank_counts counts = b->counts;
    pthread_mutex_unlock(&b->lock);
    return counts;
}
