/* An HTTP server with a service of its own, asked by libcurl and over plain sockets, before an engine
 * that the test plays. */
#ifndef HTTP_STAGE_H
#define HTTP_STAGE_H

#include <check.h>
#include <pthread.h>
#include <string.h>

#include "conf.h"
#include "http.h"

enum { BODY_MAX = 64 * 1024, KEPT_MAX = 1024, LARGE = 32 * 1024 * 1024 };

/* The test has it but while it asks: what it plays is read in the server's threads. */
extern pthread_mutex_t stage;
extern struct saga_lane_view lane[3];
extern int lanes_n;
extern int64_t turned_us;
extern const char *what_waits;
int64_t monotonic_us(void);

/* Handlers that wait (GET /slow, /search), until the test opens the gate; what /later has kept.
 * /large answers with LARGE bytes, /header?v= with a header of this value. */
extern pthread_cond_t moved; /* with stage */
extern int waiting;
extern struct saga_request *kept[KEPT_MAX];
extern int kept_n;
void open_gate(void);
void await_waiting(int n);

extern struct saga_conf conf; /* of the next start */
extern const char *stage_ca;  /* a certificate file: asks by HTTPS, and believes this one */
void stage_start(void);
void stage_stop(void);
int stage_busy(struct saga_err *err); /* starts a second server on the port of the first */
int stage_port(void);

extern char answer[65536];
extern void *curl;             /* of the newest question */
void header(const char *line); /* for the next question */
/* body NULL: none. -> status; the headers given before are used up. */
long ask(const char *method, const char *path, const char *body, size_t n);
long get(const char *path);
bool has_header(const char *line);
void is_problem(int status, const char *detail); /* the answer is RFC 9457's, with this detail */

int dial(const char *request); /* -> socket */
int hear(int fd);              /* up to the end of the connection. -> status */

int say(const char *request); /* both, without stage meanwhile */
bool is_answered(int fd);     /* the first of its answer is here; without stage meanwhile */

#endif
