/* See redis.h. Commands are written here in Redis' own form (RESP) and given to hiredis whole. */
#include "redis.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <async.h>
#include <hiredis.h>

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- REDIS_URL ---- */

/* Takes text up to one of ends. -> false: it is too long */
static bool part(const char **text, const char *ends, char *out, size_t size)
{
    size_t n = strcspn(*text, ends);

    if (n >= size)
        return false;
    memcpy(out, *text, n);
    out[n] = '\0';
    *text += n;
    return true;
}

int saga_redis_place(struct saga_redis_place *at, const char *url, struct saga_err *err)
{
    const char *text = url + 8, *credentials;
    bool good = strncmp(url, "redis://", 8) == 0;
    char *end;

    *at = (struct saga_redis_place){.port = 6379};
    credentials = good ? strchr(text, '@') : NULL;
    if (credentials)
        good = part(&text, ":@", at->user, sizeof at->user) && *text == ':' && text++ &&
               part(&text, "@", at->password, sizeof at->password) && *text == '@' && text++;
    if (good && *text == '[') /* IPv6 */
        good = text++ && part(&text, "]", at->host, sizeof at->host) && *text == ']' && text++;
    else if (good)
        good = part(&text, ":/", at->host, sizeof at->host);
    if (good && *text == ':') {
        at->port = (int)strtol(text + 1, &end, 10);
        good = at->port > 0 && at->port < 65536;
        text = end;
    }
    if (good && *text == '/' && text[1]) {
        at->number = (int)strtol(text + 1, &end, 10);
        text = end;
    } else if (good && *text == '/') {
        text++;
    }
    if (good && *at->host && !*text)
        return 0;
    return saga_err(err, SAGA_FATAL,
                    "REDIS_URL: expected redis://[[user]:password@]host[:port][/number]");
}

/* ---- Commands ---- */

void saga_redis_bytes(struct saga_redis_command *c, const void *bytes, size_t n)
{
    char *to = saga_buf_room(&c->words, n + SAGA_INT_TEXT + 5), *at = to;

    *at++ = '$';
    at += saga_int_text((int64_t)n, at);
    *at++ = '\r';
    *at++ = '\n';
    if (n)
        memcpy(at, bytes, n);
    at += n;
    *at++ = '\r';
    *at++ = '\n';
    c->words.n += (size_t)(at - to);
    c->n++;
}

void saga_redis_word(struct saga_redis_command *c, const char *word)
{
    saga_redis_bytes(c, word, strlen(word));
}

void saga_redis_number(struct saga_redis_command *c, int64_t number)
{
    char text[SAGA_INT_TEXT];

    saga_redis_bytes(c, text, saga_int_text(number, text));
}

void saga_redis_script(struct saga_redis_command *c, const struct saga_redis_script *script,
                       int keys)
{
    saga_redis_word(c, "EVALSHA");
    saga_redis_word(c, script->hash);
    saga_redis_number(c, keys);
}

void saga_redis_script_text(struct saga_redis_command *c, const struct saga_redis_script *script,
                            int keys)
{
    saga_redis_word(c, "EVAL");
    saga_redis_word(c, script->text);
    saga_redis_number(c, keys);
}

/* The whole command, in a buffer that is used again. */
static const struct saga_buf *finish(struct saga_redis_command *c, struct saga_buf *out)
{
    char *at = saga_buf_room(out, SAGA_INT_TEXT + 3);

    *at++ = '*';
    at += saga_int_text(c->n, at);
    *at++ = '\r';
    *at++ = '\n';
    out->n = (size_t)(at - out->at);
    saga_buf_add(out, c->words.at, c->words.n);
    c->words.n = 0;
    c->n = 0;
    return out;
}

/* ---- Answers ---- */

bool saga_redis_is_nil(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_NIL;
}

const char *saga_redis_error(const struct redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR ? reply->str : NULL;
}

bool saga_redis_forgot(const struct redisReply *reply)
{
    const char *error = saga_redis_error(reply);

    return error && strncmp(error, "NOSCRIPT", 8) == 0;
}

const char *saga_redis_text(const struct redisReply *reply, size_t *n)
{
    if (!reply || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS))
        return NULL;
    *n = (size_t)reply->len; /* int or size_t, as hiredis likes */
    return reply->str;
}

int64_t saga_redis_int(const struct redisReply *reply)
{
    size_t n;
    const char *text = saga_redis_text(reply, &n);

    return text ? strtoll(text, NULL, 10)
                : (reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0);
}

const struct redisReply *saga_redis_item(const struct redisReply *reply, size_t i)
{
    return reply->type == REDIS_REPLY_ARRAY && i < reply->elements ? reply->element[i] : NULL;
}

/* ---- Blocking ---- */

struct saga_redis {
    struct saga_redis_place at;
    struct saga_redis_script *const *scripts;
    redisContext *context;
    char address[INET6_ADDRSTRLEN];
    struct saga_buf scratch;
    redisReply **reply;
    int asked, answered, cap;
};

struct saga_redis *saga_redis_new(const struct saga_redis_place *at,
                                  struct saga_redis_script *const *scripts)
{
    struct saga_redis *r = saga_alloc(sizeof *r);

    *r = (struct saga_redis){.at = *at, .scripts = scripts};
    return r;
}

static void forget_replies(struct saga_redis *r)
{
    while (r->answered > 0)
        freeReplyObject(r->reply[--r->answered]);
    r->asked = 0;
}

static void disconnect(struct saga_redis *r)
{
    forget_replies(r);
    redisFree(r->context);
    r->context = NULL;
}

void saga_redis_free(struct saga_redis *r)
{
    if (!r)
        return;
    disconnect(r);
    free(r->reply);
    saga_buf_free(&r->scratch);
    free(r);
}

bool saga_redis_connected(const struct saga_redis *r)
{
    return r->context;
}

const char *saga_redis_address(const struct saga_redis *r)
{
    return r->address;
}

const struct redisReply *saga_redis_reply(const struct saga_redis *r, int i)
{
    assert(i < r->answered);
    return r->reply[i];
}

int saga_redis_answers(const struct saga_redis *r)
{
    return r->answered;
}

const struct redisReply *saga_redis_last(const struct saga_redis *r)
{
    return saga_redis_reply(r, r->answered - 1);
}

void saga_redis_add(struct saga_redis *r, struct saga_redis_command *c)
{
    const struct saga_buf *whole;

    if (r->answered)
        forget_replies(r);
    r->scratch.n = 0;
    whole = finish(c, &r->scratch);
    if (r->context && redisAppendFormattedCommand(r->context, whole->at, whole->n) == REDIS_OK)
        r->asked++;
}

static int lost(struct saga_redis *r, const char *why, struct saga_err *err)
{
    int rc = saga_err(err, SAGA_RETRY, "Redis at %s:%d: %.120s", r->at.host, r->at.port, why);

    disconnect(r);
    return rc;
}

/* Waits for the socket. -> false: not until then */
static bool await(const redisContext *context, int64_t until)
{
    struct pollfd fd = {context->fd, POLLIN, 0};
    int64_t left = until - now_us();

    return left > 0 && (poll(&fd, 1, (int)((left + 999) / 1000)) > 0 || errno == EINTR);
}

/* hiredis makes no context without memory only. */
int saga_redis_run(struct saga_redis *r, int ms, struct saga_err *err)
{
    int64_t until = now_us() + (int64_t)ms * 1000;
    void *reply = NULL;
    int written = 0;

    if (!r->context)
        return lost(r, "not connected", err);
    if (r->asked > r->cap) {
        r->cap = r->asked * 2;
        r->reply = saga_realloc(r->reply, (size_t)r->cap * sizeof *r->reply);
    }
    while (!written)
        if (redisBufferWrite(r->context, &written) != REDIS_OK)
            return lost(r, r->context->errstr, err);
    while (r->answered < r->asked) {
        if (redisGetReplyFromReader(r->context, &reply) != REDIS_OK)
            return lost(r, r->context->errstr, err);
        if (reply)
            r->reply[r->answered++] = reply;
        else if (!await(r->context, until))
            return lost(r, "no answer in time", err);
        else if (redisBufferRead(r->context) != REDIS_OK)
            return lost(r, r->context->errstr, err);
    }
    return 0;
}

int saga_redis_all_well(struct saga_redis *r, struct saga_err *err)
{
    for (int i = 0; i < r->answered; i++)
        if (saga_redis_error(r->reply[i]))
            return lost(r, saga_redis_error(r->reply[i]), err);
    return 0;
}

/* Who we are, and which of its databases. */
static int introduce(struct saga_redis_command *c, const struct saga_redis_place *at, int i)
{
    if (i == 0 && *at->password) {
        saga_redis_word(c, "AUTH");
        if (*at->user)
            saga_redis_word(c, at->user);
        saga_redis_word(c, at->password);
    } else if (i == 1 && at->number) {
        saga_redis_word(c, "SELECT");
        saga_redis_number(c, at->number);
    }
    return i < 2;
}

static void note_address(struct saga_redis *r)
{
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;

    if (getpeername(r->context->fd, (struct sockaddr *)&peer, &n) == 0)
        getnameinfo((struct sockaddr *)&peer, n, r->address, sizeof r->address, NULL, 0,
                    NI_NUMERICHOST);
}

int saga_redis_connect(struct saga_redis *r, int ms, struct saga_err *err)
{
    struct timeval most = {ms / 1000, ms % 1000 * 1000};
    struct saga_redis_command c = {0};
    int rc, n = 0;

    if (r->context)
        return 0;
    r->context = redisConnectWithTimeout(r->at.host, r->at.port, most);
    if (!r->context || r->context->err)
        return lost(r, r->context ? r->context->errstr : "out of memory", err);
    redisSetTimeout(r->context, most); /* of a write to a server that reads nothing */
    note_address(r);
    for (int i = 0; introduce(&c, &r->at, i); i++)
        if (c.n) {
            saga_redis_add(r, &c);
            n++;
        }
    for (int i = 0; r->scripts[i]; i++) {
        saga_redis_word(&c, "SCRIPT");
        saga_redis_word(&c, "LOAD");
        saga_redis_word(&c, r->scripts[i]->text);
        saga_redis_add(r, &c);
    }
    saga_buf_free(&c.words);
    if ((rc = saga_redis_run(r, ms, err)) < 0)
        return rc;
    if ((rc = saga_redis_all_well(r, err)) < 0)
        return rc;
    for (int i = 0; r->scripts[i]; i++) /* the same for ever: others may read it meanwhile */
        if (!*r->scripts[i]->hash)
            snprintf(r->scripts[i]->hash, sizeof r->scripts[i]->hash, "%s", r->reply[n + i]->str);
    forget_replies(r);
    return 0;
}

/* ---- A line ---- */

/* The questions without an answer, oldest first, in a ring: Redis answers in order. */
struct question {
    saga_redis_heard *heard; /* NULL: nobody */
    void *whose;
    int64_t at;
};

struct saga_redis_line {
    redisAsyncContext *context; /* NULL: lost */
    int fd;
    void (*watch)(int fd, unsigned events);
    unsigned events;
    struct saga_buf scratch;
    struct question *ring;
    uint32_t first, end, cap; /* cap: a power of two */
};

static void on_reply(redisAsyncContext *context, void *reply, void *unused)
{
    struct saga_redis_line *line = context->data;
    struct question q = line->ring[line->first++ & (line->cap - 1)];

    (void)unused;
    if (q.heard)
        q.heard(q.whose, reply);
}

static void want(struct saga_redis_line *line, unsigned events)
{
    if (events == line->events)
        return;
    line->events = events;
    line->watch(line->fd, events);
}

static void add_read(void *line)
{
    want(line, ((struct saga_redis_line *)line)->events | EPOLLIN);
}

static void del_read(void *line)
{
    want(line, ((struct saga_redis_line *)line)->events & ~(unsigned)EPOLLIN);
}

/* What is asked goes out at saga_redis_line_flush(), not when epoll says so. */
static void add_write(void *line)
{
    (void)line;
}

static void del_write(void *line)
{
    want(line, ((struct saga_redis_line *)line)->events & ~(unsigned)EPOLLOUT);
}

static void cleanup(void *line)
{
    want(line, 0);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    (void)status;
    ((struct saga_redis_line *)context->data)->context = NULL; /* hiredis frees it */
}

static void on_connect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK)
        on_disconnect(context, status);
}

struct saga_redis_line *saga_redis_line_new(const struct saga_redis_place *at, const char *address,
                                            void (*watch)(int fd, unsigned events),
                                            saga_redis_heard *first)
{
    struct saga_redis_line *line = saga_alloc(sizeof *line);
    struct saga_redis_command c = {0};
    redisAsyncContext *context = redisAsyncConnect(address, at->port);

    *line = (struct saga_redis_line){.context = context, .watch = watch};
    if (!context || context->err) {
        if (context)
            redisAsyncFree(context);
        line->context = NULL;
        return line;
    }
    line->fd = context->c.fd;
    context->data = context->ev.data = line;
    context->ev.addRead = add_read;
    context->ev.delRead = del_read;
    context->ev.addWrite = add_write;
    context->ev.delWrite = del_write;
    context->ev.cleanup = cleanup;
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    want(line, EPOLLIN | EPOLLOUT); /* EPOLLOUT: it is connected */
    for (int i = 0; introduce(&c, at, i); i++)
        if (c.n)
            saga_redis_line_ask(line, &c, NULL, NULL); /* refused: so is what follows */
    saga_redis_word(&c, "PING");
    saga_redis_line_ask(line, &c, first, NULL);
    saga_buf_free(&c.words);
    return line;
}

void saga_redis_line_free(struct saga_redis_line *line)
{
    if (!line)
        return;
    if (line->context)
        redisAsyncFree(line->context);
    free(line->ring);
    saga_buf_free(&line->scratch);
    free(line);
}

bool saga_redis_line_open(const struct saga_redis_line *line)
{
    enum { ALL = REDIS_CONNECTED | REDIS_DISCONNECTING | REDIS_FREEING };

    return line && line->context && (line->context->c.flags & ALL) == REDIS_CONNECTED;
}

static void grow(struct saga_redis_line *line)
{
    uint32_t n = line->end - line->first, cap = line->cap ? line->cap * 2 : 1024;
    struct question *ring = saga_alloc(cap * sizeof *ring);

    for (uint32_t i = 0; i < n; i++)
        ring[i] = line->ring[(line->first + i) & (line->cap - 1)];
    free(line->ring);
    line->ring = ring;
    line->cap = cap;
    line->first = 0;
    line->end = n;
}

void saga_redis_line_ask(struct saga_redis_line *line, struct saga_redis_command *c,
                         saga_redis_heard *heard, void *whose)
{
    const struct saga_buf *whole;

    if (line->end - line->first == line->cap)
        grow(line);
    line->ring[line->end++ & (line->cap - 1)] = (struct question){heard, whose, now_us()};
    line->scratch.n = 0;
    whole = finish(c, &line->scratch);
    int rc = redisAsyncFormattedCommand(line->context, on_reply, NULL, whole->at, whole->n);
    assert(rc == REDIS_OK); /* it is being closed: then it is not open */
    (void)rc;
}

void saga_redis_line_ready(struct saga_redis_line *line, unsigned events)
{
    if (line->context && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        redisAsyncHandleRead(line->context);
    if (line->context && events & EPOLLOUT)
        redisAsyncHandleWrite(line->context);
}

void saga_redis_line_flush(struct saga_redis_line *line)
{
    if (!saga_redis_line_open(line) || !line->context->c.obuf || !*line->context->c.obuf)
        return;
    redisAsyncHandleWrite(line->context);
    if (line->context && *line->context->c.obuf) /* the socket is full */
        want(line, line->events | EPOLLOUT);
}

int64_t saga_redis_line_since(const struct saga_redis_line *line)
{
    return line->first == line->end ? 0 : line->ring[line->first & (line->cap - 1)].at;
}
