/* Redis: the only caller of hiredis (0.14: no TLS). Commands and scripts over two kinds of
 * connection, each of one thread: a blocking one, whose batches of commands have a time-out in all;
 * and a line, which waits for nothing and tells its answers later. Neither tries again by itself. */
#ifndef SAGA_REDIS_H
#define SAGA_REDIS_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"

/* Of REDIS_URL: redis://[[user]:password@]host[:port][/number] */
struct saga_redis_place {
    char host[256], user[64], password[128];
    int port, number;
};
/* -> 0, SAGA_FATAL: what is expected */
int saga_redis_place(struct saga_redis_place *at, const char *url, struct saga_err *err);

/* ---- A command: {0}, then its words in order ---- */
struct saga_redis_command {
    struct saga_buf words;
    int n;
};
void saga_redis_word(struct saga_redis_command *c, const char *word);
void saga_redis_bytes(struct saga_redis_command *c, const void *bytes, size_t n);
void saga_redis_number(struct saga_redis_command *c, int64_t number);

/* A script is sent by its hash, which the server tells when a blocking connection is made. Begins a
 * command: keys are the first words, keys of them. */
struct saga_redis_script {
    const char *text; /* static */
    char hash[41];    /* "": not known yet */
};
void saga_redis_script(struct saga_redis_command *c, const struct saga_redis_script *script,
                       int keys);
void saga_redis_script_text(struct saga_redis_command *c, const struct saga_redis_script *script,
                            int keys); /* where the server has forgotten it */

/* ---- An answer ---- */
struct redisReply;
bool saga_redis_is_nil(const struct redisReply *reply);
bool saga_redis_forgot(const struct redisReply *reply);                 /* the script: NOSCRIPT */
const char *saga_redis_error(const struct redisReply *reply);           /* NULL: it is none */
const char *saga_redis_text(const struct redisReply *reply, size_t *n); /* NULL: it is none */
int64_t saga_redis_int(const struct redisReply *reply);                 /* also of a text; else 0 */
const struct redisReply *saga_redis_item(const struct redisReply *reply,
                                         size_t i); /* NULL: there is none */

/* ---- Blocking ---- */
struct saga_redis;
/* scripts: up to one without text; their hashes are filled in. Connects at the first run. */
struct saga_redis *saga_redis_new(const struct saga_redis_place *at,
                                  struct saga_redis_script *const *scripts);
void saga_redis_free(struct saga_redis *r);
bool saga_redis_connected(const struct saga_redis *r);
/* Connects if it is not; -> 0, SAGA_RETRY. The answers may take ms in all. */
int saga_redis_connect(struct saga_redis *r, int ms, struct saga_err *err);
void saga_redis_add(struct saga_redis *r,
                    struct saga_redis_command *c); /* to the batch; empties c */
/* Sends the batch and waits. -> 0: every command has an answer (an error is one); SAGA_RETRY: not
 * within ms, or lost; it is not connected then, and nobody knows what has been done. A script that
 * the server had forgotten is an error here: connect again. */
int saga_redis_run(struct saga_redis *r, int ms, struct saga_err *err);
const struct redisReply *saga_redis_reply(const struct saga_redis *r, int i); /* until next add */
int saga_redis_answers(const struct saga_redis *r);                           /* of the last run */
const struct redisReply *saga_redis_last(const struct saga_redis *r);
/* -> 0, or SAGA_RETRY: one of the answers is an error; it is not connected then */
int saga_redis_all_well(struct saga_redis *r, struct saga_err *err);
/* Where it is connected to, in numbers: a line connects without asking for names. */
const char *saga_redis_address(const struct saga_redis *r);

/* ---- A line ---- */
struct saga_redis_line;
/* reply: of this call only; NULL: there will be none, the line is lost. */
typedef void saga_redis_heard(void *whose, const struct redisReply *reply);
/* watch: called with what the descriptor is to be watched for (epoll's), 0: no more. first: hears an
 * answer to PING, or NULL. */
struct saga_redis_line *saga_redis_line_new(const struct saga_redis_place *at, const char *address,
                                            void (*watch)(int fd, unsigned events),
                                            saga_redis_heard *first);
void saga_redis_line_free(struct saga_redis_line *line); /* all that wait hear NULL */
bool saga_redis_line_open(const struct saga_redis_line *line);
/* heard comes later, never from within this call. Empties c. */
void saga_redis_line_ask(struct saga_redis_line *line, struct saga_redis_command *c,
                         saga_redis_heard *heard, void *whose);
void saga_redis_line_ready(struct saga_redis_line *line, unsigned events);
void saga_redis_line_flush(struct saga_redis_line *line); /* sends what was asked since */
/* When the oldest question without an answer was asked, us of CLOCK_MONOTONIC; 0: there is none */
int64_t saga_redis_line_since(const struct saga_redis_line *line);

#endif
