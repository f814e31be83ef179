/* The provider over HTTP, by libcurl's multi interface: one thread has all calls in flight.
 *
 * call() hands its calls over to that thread and returns; while PAYMENT_PROVIDER_CALLS are held it
 * waits for room, with it the callers' threads, and at last the queue of calls, which refuses: what
 * is held is bounded, and the engine never waits. Connections are used again.
 *
 * Each try of an order's charge, or refund, has the same Idempotency-Key. A try has
 * SAGA_CALL_TIMEOUT in all, with its look-up if it has one. What it does not know for certain
 * (provider_wire.h) is unknown, and the rule asks again. While the breaker is open nothing is sent,
 * and a call is unknown at once.
 *
 * The rule decides whether a call must be looked up before, because its key may be forgotten; here a
 * call that has grown older than its due on its way (a full queue, a paused process) is dropped,
 * because that decision has grown old with it. Its due has come by then, and decides again. So a try
 * is sent within twice SAGA_CALL_TIMEOUT and a second of its rule, and keys must be kept for more
 * than twice that: half of the time that they are kept is what a rule counts on.
 *
 * A stop does not wait for calls in flight: the process ends, and their dues come at the next one. */
#include "provider.h"

#include <arpa/inet.h>
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "breaker.h"
#include "failpoint.h"
#include "log.h"
#include "mem.h"
#include "metrics.h"
#include "payment.h"
#include "provider_wire.h"

#define MS     INT64_C(1000)
#define SECOND INT64_C(1000000)

enum { TOKEN_MAX = 4096, URL_MAX = 1024, OTHER_FILES = 600 /* descriptors of the rest of us */ };

struct payment_http payment_http;

/* ---- Settings ---- */

static char bearer[TOKEN_MAX + 32]; /* the header; "": none */

static bool is_loopback(const char *host)
{
    struct in_addr v4;

    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

static bool has_part(CURLU *url, CURLUPart what)
{
    char *part = NULL;
    bool has = curl_url_get(url, what, &part, 0) == CURLUE_OK;

    curl_free(part);
    return has;
}

/* Credentials and tokens go over it: TLS, but on this machine. */
static bool url_fits(const char *text)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL;
    bool fits =
        strlen(text) <= URL_MAX && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        (strcmp(scheme, "https") == 0 || (strcmp(scheme, "http") == 0 && is_loopback(host))) &&
        !has_part(url, CURLUPART_USER) && !has_part(url, CURLUPART_PASSWORD) &&
        !has_part(url, CURLUPART_QUERY) && !has_part(url, CURLUPART_FRAGMENT);

    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(url);
    return fits;
}

/* -> NULL: the file has a token, now in bearer */
static const char *read_token(const char *name)
{
    char token[TOKEN_MAX + 2];
    FILE *file = fopen(name, "r");
    size_t n = file ? fread(token, 1, sizeof token - 1, file) : 0;
    bool failed = !file || ferror(file);
    const char *why = failed ? strerror(errno) : NULL;

    if (file)
        fclose(file);
    if (failed)
        return why;
    while (n > 0 && (token[n - 1] == '\n' || token[n - 1] == '\r'))
        n--;
    token[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if (token[i] <= ' ' || token[i] > '~')
            return "expected one word of printable ASCII";
    if (n == 0 || n > TOKEN_MAX)
        return "expected a token of 1 to 4096 characters";
    snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", token);
    return NULL;
}

/* Room for a connection of each call. */
static bool files_fit(void)
{
    struct rlimit files;
    rlim_t need = (rlim_t)payment_http.calls + OTHER_FILES;

    return getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= need;
}

static bool fits(const char **why)
{
    static char text[240];
    int64_t keeps = 2 * (2 * payment_call_timeout + SECOND);
    const char *bad = NULL;

    *why = text;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (!url_fits(payment_http.url))
        snprintf(
            text, sizeof text,
            "PAYMENT_PROVIDER_URL=%.80s: expected https://host/path, or http:// of this machine "
            "(127.0.0.1, [::1], localhost), without user, query and fragment",
            payment_http.url);
    else if (*payment_http.token_file && (bad = read_token(payment_http.token_file)))
        snprintf(text, sizeof text, "PAYMENT_PROVIDER_TOKEN_FILE=%.80s: cannot be read: %s",
                 payment_http.token_file, bad);
    else if (*payment_http.ca_file && access(payment_http.ca_file, R_OK) < 0)
        snprintf(text, sizeof text, "PAYMENT_PROVIDER_CA_FILE=%.80s: cannot be read: %s",
                 payment_http.ca_file, strerror(errno));
    else if (provider_http.keeps_keys_us < keeps)
        snprintf(text, sizeof text,
                 "PAYMENT_PROVIDER_KEEPS_KEYS=%" PRId64 "ms: expected at least %" PRId64
                 "ms, four times SAGA_CALL_TIMEOUT and 2s",
                 provider_http.keeps_keys_us / MS, keeps / MS);
    else if (!files_fit())
        snprintf(text, sizeof text,
                 "PAYMENT_PROVIDER_CALLS=%" PRId64 ": expected so few that %d files more are fewer "
                 "than may be open (ulimit -n)",
                 payment_http.calls, OTHER_FILES);
    else
        return true;
    return false;
}

/* ---- Handing over ---- */

/* A call and its try. */
struct flight {
    struct flight *next; /* of those that wait */
    struct saga_call call;
    struct charge charge;
    char order[ID_MAX + 1], currency[4], token[ID_MAX + 1], payment_id[ID_MAX + 1];
    int64_t began, until;
    bool looking; /* it is being looked up */
    CURL *curl;
    struct curl_slist *headers;
    char *body;
    struct wire_bytes answer;
};

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    sem_t room;                   /* for so many more to wait or fly */
    struct flight *first, **last; /* that wait to be sent */
    CURLM *multi;
    /* the thread's own: */
    struct breaker breaker;
    int64_t told; /* when a call without answer was last logged */
    saga_cell_t *in_flight, *state, *stopped, *dropped;
    struct saga_histogram *seconds;
} line = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .last = &line.first};

/* The engine's clock, which says since when a call waits. */
static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static const char *copy(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text);
    return to;
}

static struct flight *flight_of(const struct saga_call *call)
{
    const struct charge *asked = call->data;
    struct flight *f = saga_alloc(sizeof *f);

    *f = (struct flight){.call = *call, .charge = *asked};
    f->call.key = copy(f->order, sizeof f->order, call->key);
    f->call.data = &f->charge;
    f->call.since = call->since ? call->since : now();
    f->charge.currency = copy(f->currency, sizeof f->currency, asked->currency);
    f->charge.token = copy(f->token, sizeof f->token, asked->token);
    f->charge.payment_id = copy(f->payment_id, sizeof f->payment_id, asked->payment_id);
    return f;
}

static void hand_over(struct flight *f)
{
    while (sem_wait(&line.room) < 0)
        ; /* a signal */
    pthread_mutex_lock(&line.lock);
    bool first = !line.first;
    *line.last = f;
    line.last = &f->next;
    pthread_mutex_unlock(&line.lock);
    if (first)
        curl_multi_wakeup(line.multi);
}

static struct flight *take_over(void)
{
    pthread_mutex_lock(&line.lock);
    struct flight *all = line.first;
    line.first = NULL;
    line.last = &line.first;
    pthread_mutex_unlock(&line.lock);
    return all;
}

static void drop(struct flight *f)
{
    curl_slist_free_all(f->headers);
    free(f->body);
    free(f->answer.at);
    free(f);
    sem_post(&line.room);
}

/* ---- Answers ---- */

static void show_breaker(enum breaker_state was)
{
    static const char *const lines[] = {"the provider answers again: its circuit breaker is closed",
                                        NULL, "no call is answered: the circuit breaker is open"};
    enum breaker_state is = line.breaker.is;

    saga_gauge(line.state, is);
    if (was != is && lines[is] && !(was == BREAKER_PROBING && is == BREAKER_OPEN))
        saga_log_at(SAGA_WARN, lines[is], NULL);
}

/* One of them a second: all are among the attempts that GET /api/v1/payments shows. */
static void tell_people(const struct flight *f, const struct wire_said *said)
{
    char about[ID_MAX + sizeof said->reason + 32];

    if (now() - line.told < SECOND)
        return;
    line.told = now();
    snprintf(about, sizeof about, "%s:%s: %s", f->call.call->type, f->order, said->reason);
    saga_log_text(SAGA_WARN, "a call without answer, to be made again", about);
}

static void count_answer(const char *type)
{
    char labels[48];

    snprintf(labels, sizeof labels, "answer=\"%s\"", type);
    saga_count(saga_metric("payment_provider_answers_total", labels,
                           "What calls to the provider came to."),
               1);
}

static void answer(struct flight *f, const struct wire_said *said)
{
    struct answer text = {*said->ref ? said->ref : NULL, *said->reason ? said->reason : NULL};

    count_answer(said->event->type);
    if (said->event == &charge_unknown || said->event == &refund_unknown)
        tell_people(f, said);
    payment_answer(&f->call, said->event, &text);
    drop(f);
}

static void give_up(struct flight *f, const char *why)
{
    struct wire_said said;

    wire_failed(&said, &f->call, why);
    answer(f, &said);
}

/* ---- Requests ---- */

static size_t on_bytes(char *bytes, size_t one, size_t n, void *f)
{
    return wire_take(&((struct flight *)f)->answer, bytes, one * n) ? one * n : 0;
}

static void add_header(struct flight *f, const char *text)
{
    struct curl_slist *more = curl_slist_append(f->headers, text);

    assert(more); /* no memory: as saga_alloc */
    f->headers = more;
}

static void set_headers(struct flight *f)
{
    char key[2 * ID_MAX];

    curl_slist_free_all(f->headers);
    f->headers = NULL;
    add_header(f, "Accept: application/json");
    if (*bearer)
        add_header(f, bearer);
    if (f->looking)
        return;
    snprintf(key, sizeof key, "Idempotency-Key: %s:%s", f->call.call->type, f->order);
    add_header(f, key);
    add_header(f, "Content-Type: application/json");
    add_header(f, "Expect:"); /* no waiting for 100 Continue */
}

static void set_options(struct flight *f, const char *url, int64_t at)
{
    CURL *curl = f->curl;

    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* an order may be called ".." */
    curl_easy_setopt(curl, CURLOPT_PRIVATE, f);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, f->headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(payment_http.connect_timeout / MS));
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)((f->until - at + MS - 1) / MS));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    /* A name that is looked for in vain keeps no other call waiting (curl #4852). */
    curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
    /* One call at a time on a connection: a call that timed out closes it (HTTP/2's would be used again,
     * curl #17225), and what is to show that the provider is back does not depend on an old one. */
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, line.breaker.is == BREAKER_PROBING ? 1L : 0L);
    /* Where a redirect leads is not where our token may go. */
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    if (strncmp(payment_http.url, "https:", 6) != 0)
        curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* what is plain stays on this machine */
    if (*payment_http.ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, payment_http.ca_file);
    if (!f->looking) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, f->body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(f->body));
    }
}

/* Every call that the breaker lets begin is told to it at its end, also one that was never sent. */
static void not_sent(struct flight *f, const char *why)
{
    enum breaker_state was = line.breaker.is;

    breaker_failed(&line.breaker, f->began, now());
    show_breaker(was);
    give_up(f, why);
}

static void send_it(struct flight *f)
{
    char path[WIRE_PATH_MAX], url[URL_MAX + WIRE_PATH_MAX];
    int64_t at = now();
    int n = (int)strlen(payment_http.url);

    if (at >= f->until) {
        not_sent(f, "timeout");
        return;
    }
    while (n > 0 && payment_http.url[n - 1] == '/')
        n--;
    wire_path(&f->call, f->looking, path);
    snprintf(url, sizeof url, "%.*s%s", n, payment_http.url, path);
    free(f->answer.at);
    f->answer = (struct wire_bytes){0};
    free(f->body);
    f->body = f->looking ? NULL : wire_body(&f->call);
    set_headers(f);
    f->curl = curl_easy_init();
    assert(f->curl && (f->looking || f->body));
    set_options(f, url, at);
    if (curl_multi_add_handle(line.multi, f->curl) != CURLM_OK) {
        curl_easy_cleanup(f->curl);
        not_sent(f, "not sent");
    }
}

static void begin(struct flight *f)
{
    enum breaker_state was = line.breaker.is;

    f->began = now();
    f->until = f->began + payment_call_timeout;
    f->looking = f->charge.look_up;
    if (f->began - f->call.since > payment_call_timeout + SECOND) {
        saga_count(line.dropped, 1);
        drop(f);
        return;
    }
    if (!breaker_lets(&line.breaker, f->began)) {
        saga_count(line.stopped, 1);
        give_up(f, "circuit breaker open");
        return;
    }
    show_breaker(was);
    send_it(f);
}

static void done(CURL *curl, CURLcode code)
{
    enum breaker_state was = line.breaker.is;
    struct flight *f;
    struct wire_said said;
    long status = 0;

    curl_easy_getinfo(curl, CURLINFO_PRIVATE, &f);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(line.multi, curl);
    curl_easy_cleanup(curl);
    if (code == CURLE_OK)
        wire_read(&said, &f->call, f->looking, status, &f->answer);
    else
        wire_failed(&said, &f->call,
                    f->answer.too_large                ? "answer too large"
                    : code == CURLE_OPERATION_TIMEDOUT ? "timeout"
                                                       : curl_easy_strerror(code));
    if (said.well)
        breaker_well(&line.breaker, now());
    else
        breaker_failed(&line.breaker, f->began, now());
    show_breaker(was);
    saga_observe(line.seconds, now() - f->began);
    if (said.event) {
        answer(f, &said);
    } else { /* looked up: to be asked for, under the same key */
        f->looking = false;
        send_it(f);
    }
}

/* ---- The thread ---- */

static void *fly(void *unused)
{
    CURLMsg *message;
    int running = 0, left;

    (void)unused;
    for (;;) {
        for (struct flight *f = take_over(), *next; f; f = next) {
            next = f->next;
            begin(f);
        }
        curl_multi_perform(line.multi, &running);
        while ((message = curl_multi_info_read(line.multi, &left)))
            if (message->msg == CURLMSG_DONE)
                done(message->easy_handle, message->data.result);
        saga_gauge(line.in_flight, running);
        curl_multi_poll(line.multi, NULL, 0, 1000, NULL);
    }
    return NULL;
}

static void start(void)
{
    static const int64_t bounds[] = {5 * MS,    10 * MS,   25 * MS,    50 * MS,
                                     100 * MS,  250 * MS,  500 * MS,   1000 * MS,
                                     2500 * MS, 5000 * MS, 10000 * MS, 0};
    pthread_t thread;

    sem_init(&line.room, 0, (unsigned)payment_http.calls);
    line.breaker = (struct breaker){payment_http.break_after, payment_http.break_for};
    line.in_flight = saga_metric("payment_provider_in_flight", "", "Calls to the provider.");
    line.state = saga_metric("payment_provider_breaker", "",
                             "The circuit breaker: 0 closed, 1 one call is tried, 2 open.");
    line.stopped = saga_metric("payment_provider_broken_total", "",
                               "Calls that were not sent because the breaker was open.");
    line.dropped = saga_metric("payment_provider_dropped_total", "",
                               "Calls that had waited for longer than their due.");
    line.seconds = saga_histogram("payment_provider_seconds", "",
                                  "From the beginning of a try to its answer.", bounds);
    line.multi = curl_multi_init();
    assert(line.multi);
    curl_multi_setopt(line.multi, CURLMOPT_MAXCONNECTS, (long)payment_http.calls);
    int rc = pthread_create(&thread, NULL, fly, NULL);
    assert(rc == 0);
    pthread_detach(thread);
}

static void call(const struct saga_call *calls, int n)
{
    SAGA_FAILPOINT(call_begun);
    pthread_once(&line.once, start);
    for (int i = 0; i < n; i++)
        hand_over(flight_of(&calls[i]));
}

struct payment_provider provider_http = {"http", 24 * 3600 * SECOND, call, fits};
