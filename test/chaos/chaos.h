/* A run of chaos: an installation with two processes of each service, a load of all kinds of orders,
 * and faults drawn by seed while it runs. */
#ifndef CHAOS_H
#define CHAOS_H

#include "proxy.h"
#include "world.h"

enum { EACH = 2 /* processes of a service */ };

struct chaos {
    struct world *w;
    struct proxy *proxy;
    uint64_t random;
    int orders, sent;     /* to be placed in all, placed */
    int64_t under_way;    /* orders, summed over the faults that they met */
    int64_t absorbed;     /* duplicates, told by processes that have ended since */
    bool kafka, postgres; /* are there */
};

uint64_t chaos_random(struct chaos *c, uint64_t below);

/* ---- load.c: orders ---- */

/* Sends orders until sent is at least this, if Kafka is there; else later. */
void load_send(struct chaos *c, int until);
/* Paid orders that are to be shipped are, and then completed. -> how many are not yet at that end */
int load_ship(struct chaos *c);
int64_t load_sent(const struct chaos *c); /* orders, the others than world_load's too */
int64_t load_ended(struct chaos *c);      /* of them, at an end, or paid */
const char *load_open(struct chaos *c);   /* the first few that are not, and their states */
/* Every order that was sent is there and has ended as its kind must; every letter is there. */
struct world_found load_check(struct chaos *c);
/* What the services tell over HTTP is what the databases hold. -> orders and SKUs compared */
int64_t load_compare(struct chaos *c);

/* ---- faults.c ---- */

enum fault {
    KILL,      /* -9 of a service, started again at once or later */
    PAUSE,     /* SIGSTOP, for longer than the session time-out */
    POSTGRES,  /* immediate shutdown, started again */
    TERMINATE, /* sessions ended by the administrator */
    CUT,       /* a connection is lost between COMMIT and its answer */
    BOOK,      /* the provider's answer is lost the same way */
    KAFKA,     /* kill -9, started again */
    COPY,      /* a whole topic of events is sent once more, each into its own partition */
    FAULTS
};
extern const char *const fault_names[];

/* Faults in an order drawn by seed, so many of each kind that a run of so many orders has its share. */
void faults_draw(struct chaos *c);
int faults_left(void);
/* The next one. What has to be mended later is. -> false: it is impossible now, and stays the next */
bool faults_next(struct chaos *c);
void faults_mend(struct chaos *c, bool all); /* what is due, or all */
/* Who has ended and was not killed is a finding. */
void faults_look(struct chaos *c);
int64_t faults_made(const struct chaos *c, enum fault fault); /* that took place */
int faults_meant(enum fault fault);
void faults_absorbed(struct chaos *c, struct member *m); /* asks for duplicates, before its end */

#endif
