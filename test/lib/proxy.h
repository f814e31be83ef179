/* A process between services and PostgreSQL that can take the answer to a COMMIT away: it forwards the
 * COMMIT, ends the client's connection, and lets the server do what it was told. */
#ifndef PROXY_H
#define PROXY_H

#include <stdint.h>

struct proxy;

/* Forks; it ends with us. server_port: of PostgreSQL on 127.0.0.1, which may come and go. */
struct proxy *proxy_start(int server_port);
int proxy_port(const struct proxy *p);
/* The next COMMITs whose answers are lost: of transactions, and of the provider's books, which are
 * single statements. */
enum proxy_kind { PROXY_COMMIT, PROXY_BOOK, PROXY_KINDS };
void proxy_cut(struct proxy *p, enum proxy_kind kind, int n);
void proxy_heal(struct proxy *p); /* no more of them */
int64_t proxy_cuts(const struct proxy *p, enum proxy_kind kind);
int64_t proxy_commits(const struct proxy *p); /* seen in all */
void proxy_stop(struct proxy *p);

#endif
