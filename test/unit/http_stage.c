/* The server, its service, the engine's part, and the asking. See http_stage.h. */
#include "http_stage.h"

#include <curl/curl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- The engine's part ---- */

pthread_mutex_t stage = PTHREAD_MUTEX_INITIALIZER;
struct saga_lane_view lane[3];
int lanes_n;
int64_t turned_us;
const char *what_waits;

int64_t monotonic_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int lanes(struct saga_lane_view *out, int max)
{
    pthread_mutex_lock(&stage);
    int n = lanes_n < max ? lanes_n : max;
    memcpy(out, lane, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&stage);
    return n;
}

static int total(void)
{
    return 12;
}

static int64_t turned(void)
{
    pthread_mutex_lock(&stage);
    int64_t us = turned_us;
    pthread_mutex_unlock(&stage);
    return us;
}

static const char *waits(char *text, size_t n)
{
    pthread_mutex_lock(&stage);
    snprintf(text, n, "%s", what_waits ? what_waits : "");
    pthread_mutex_unlock(&stage);
    return *text ? text : NULL;
}

/* ---- The service's part ---- */

static void show(struct saga_request *req)
{
    const char *q = saga_query(req, "q");
    saga_reply_header(req, "ETag", "\"7\"");
    saga_reply(req, 200,
               json_pack("{s:s, s:s}", "id", saga_path(req, "id"), "q", q ? q : "(none)"));
}

/* Answers with the size of the body, or the error that X-Error asks for. */
static void take(struct saga_request *req)
{
    size_t n;
    struct saga_err err = {0};
    const char *code = saga_header(req, "X-Error");
    saga_body(req, &n);
    if (!code) {
        saga_reply(req, 202, json_pack("{s:I}", "n", (json_int_t)n));
        return;
    }
    saga_err(&err, atoi(code), "what went wrong");
    saga_reply_error(req, &err);
}

/* ---- Handlers that wait, until the test opens the gate; both by the stage ---- */

pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool gate;
int waiting;
struct saga_request *kept[KEPT_MAX];
int kept_n;

static void wait_at_gate(struct saga_request *req)
{
    pthread_mutex_lock(&stage);
    waiting++;
    pthread_cond_broadcast(&moved);
    while (!gate)
        pthread_cond_wait(&moved, &stage);
    waiting--;
    pthread_mutex_unlock(&stage);
    saga_reply(req, 200, json_object());
}

static void keep_for_later(struct saga_request *req)
{
    saga_later(req);
    pthread_mutex_lock(&stage);
    ck_assert_int_lt(kept_n, KEPT_MAX);
    kept[kept_n++] = req;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&stage);
}

static void pass_to_gate(struct saga_request *req)
{
    saga_later(req);
    saga_pass(req, wait_at_gate);
}

static void answer_large(struct saga_request *req)
{
    char *text = malloc(LARGE);
    memset(text, 'x', LARGE);
    saga_reply_text(req, 200, "text/plain", text, LARGE);
    free(text);
}

static void answer_header(struct saga_request *req)
{
    saga_reply_header(req, "X-Value", saga_query(req, "v"));
    saga_reply_header(req, "Cache-Control", "max-age=5");
    saga_reply(req, 200, json_object());
}

static const struct saga_route routes[] = {
    {"GET", "/api/v1/orders/{id}", show},
    {"POST", "/api/v1/orders", take},
    {"GET", "/api/v1/orders", take},
    {"GET", "/slow", wait_at_gate},
    {"GET", "/search", wait_at_gate, SAGA_SEARCH},
    {"GET", "/later", keep_for_later, SAGA_AT_ONCE},
    {"GET", "/passed", pass_to_gate, SAGA_AT_ONCE},
    {"GET", "/large", answer_large, SAGA_AT_ONCE, "text/plain"},
    {"GET", "/header", answer_header, SAGA_AT_ONCE},
    {0}};
static const struct saga_service service = {.name = "order", .routes = routes};
static const struct saga_view view = {lanes, total, turned, waits};
#define SETTINGS                                                                                   \
    .database = "", .prefix = "", .http_token_file = "", .http_tls_cert = "", .http_tls_key = "",  \
    .http_connections = 4096, .http_request_timeout = 20000000, .http_idle_timeout = 30000000
struct saga_conf conf = {.http_listen = "127.0.0.1:0", SETTINGS};

/* ---- Asking ---- */

static int port;
void *curl;
const char *stage_ca;
static struct curl_slist *headers;
char answer[65536];
static char answer_headers[8192];
static size_t answer_n, answer_headers_n;

static size_t keep(char *data, size_t size, size_t n, void *to)
{
    bool body = to == answer;
    size_t *at = body ? &answer_n : &answer_headers_n,
           room = body ? sizeof answer : sizeof answer_headers;
    ck_assert_uint_lt(*at + size * n, room);
    memcpy((char *)to + *at, data, size * n);
    *at += size * n;
    ((char *)to)[*at] = 0;
    return size * n;
}

void header(const char *line)
{
    headers = curl_slist_append(headers, line);
}

long ask(const char *method, const char *path, const char *body, size_t n)
{
    char url[70000];
    long status = 0;
    snprintf(url, sizeof url, "http%s://127.0.0.1:%d%s", stage_ca ? "s" : "", port, path);
    curl_easy_reset(curl);
    if (stage_ca)
        curl_easy_setopt(curl, CURLOPT_CAINFO, stage_ca);
    answer_n = answer_headers_n = 0;
    *answer = *answer_headers = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 10000L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer_headers);
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)n);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    pthread_mutex_unlock(&stage);
    CURLcode rc = curl_easy_perform(curl);
    pthread_mutex_lock(&stage);
    ck_assert_msg(rc == CURLE_OK, "%s %.100s: %s", method, path, curl_easy_strerror(rc));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    headers = NULL;
    return status;
}

long get(const char *path)
{
    return ask("GET", path, NULL, 0);
}

bool has_header(const char *line)
{
    return strcasestr(answer_headers, line) != NULL;
}

void is_problem(int status, const char *detail)
{
    json_t *o = json_loads(answer, 0, NULL);
    ck_assert_msg(o != NULL, "%s", answer);
    ck_assert(has_header("Content-Type: application/problem+json"));
    ck_assert_int_eq(json_integer_value(json_object_get(o, "status")), status);
    ck_assert_ptr_nonnull(json_string_value(json_object_get(o, "title")));
    ck_assert_str_eq(json_string_value(json_object_get(o, "detail")), detail);
    json_decref(o);
}

void stage_start(void)
{
    struct saga_err err = {0};
    pthread_mutex_lock(&stage);
    lanes_n = 1;
    lane[0] = (struct saga_lane_view){.lane = 7, .state = "running"};
    turned_us = monotonic_us();
    what_waits = NULL;
    gate = false;
    kept_n = 0;
    ck_assert_msg(saga_http_start(&conf, &service, &view, &port, &err) == 0, "%s", err.text);
    ck_assert_int_gt(port, 0);
    curl = curl_easy_init();
}

void open_gate(void)
{
    gate = true;
    pthread_cond_broadcast(&moved);
}

void stage_stop(void)
{
    curl_easy_cleanup(curl);
    open_gate();
    pthread_mutex_unlock(&stage);
    saga_http_stop();
}

/* ---- Asking without libcurl: several at once, and what it would not send ---- */

int dial(const char *request)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    ck_assert_int_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (int)strlen(request));
    return fd;
}

int hear(int fd)
{
    size_t n = 0;
    ssize_t part;
    while (n + 1 < sizeof answer && (part = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0)
        n += (size_t)part;
    answer[n] = 0;
    close(fd);
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : -1;
}

int say(const char *request)
{
    int fd = dial(request);
    pthread_mutex_unlock(&stage);
    int status = hear(fd);
    pthread_mutex_lock(&stage);
    return status;
}

bool is_answered(int fd)
{
    pthread_mutex_unlock(&stage);
    bool any = recv(fd, answer, sizeof answer, 0) > 0;
    pthread_mutex_lock(&stage);
    return any;
}

void await_waiting(int n)
{
    while (waiting != n)
        pthread_cond_wait(&moved, &stage);
}

int stage_busy(struct saga_err *err)
{
    char listen[32];
    int other;
    snprintf(listen, sizeof listen, "127.0.0.1:%d", port);
    struct saga_conf second = conf;
    second.http_listen = listen;
    return saga_http_start(&second, &service, &view, &other, err);
}

int stage_port(void)
{
    return port;
}
