/* What explore.c (the walk) and step.c (its steps) share. */
#ifndef STEP_H
#define STEP_H

#include "explore.h"

enum { STEPS_MAX = 200 };
/* us. Nothing but its own step goes as far as an order's deadline, or from one to the next. */
#define PAY_TIMEOUT INT64_C(2592000000000)
#define APART       INT64_C(3600000000)

enum step_kind {
    ASK,    /* n: which */
    READ,   /* a record of an input */
    REPLY,  /* n: which of the key's */
    DUE,    /* a row's deadline */
    COMMIT, /* of a batch of more than one */
    SEND,   /* a row that a new owner finds unsent */
    ACK,    /* a report comes */
    CALL,   /* n: enum how, or GONE */
    AGAIN,  /* a call that runs is made by another, too */
    CRASH,  /* of a service */
    TAKE,   /* of a lane, the old owner lives; or because a record was lost */
    ZOMBIE, /* it sends a row */
    COPY,   /* of a record (n) */
    REWIND, /* of an input, to n */
};
enum { GONE = -1 };
/* What follows a COMMIT. */
enum after {
    PUBLISHED,   /* it is sent; unless plan->reports, that is reported */
    KILLED,      /* the process is, before it sends */
    KILLED_SENT, /* after that */
    PAUSED,      /* before it sends, and another owner takes the lane */
    LOST,        /* the first record is, on its way, and the producer is told nonsense */
    AFTERS
};
struct step {
    enum step_kind kind;
    enum after after;
    int8_t service, lane, input, which; /* which: of a key's calls, enum call_filter */
    int n;
    const char *key;
    bool owed; /* it comes, sooner or later */
};
struct steps {
    struct step at[STEPS_MAX];
    int n;
};

/* What is left of what the plan allows. */
struct left {
    int8_t ask[ASKS_MAX], silent, early, crashes, takeovers, copies, rewinds, losses;
    int8_t gathered; /* inputs of the open batch, */
    int8_t open;     /* and of which service; -1: none */
};
struct place { /* all that a step changes: in the region */
    struct sim_world w;
    struct left left;
};

/* What is explored. */
extern const struct plan *plan;
extern struct place *place;
extern struct scope scope;
extern struct schedule *recording; /* of the moves that steps are made of, or NULL */

void step_begin(const struct plan *p); /* a new place, in a region */
void step_list(struct steps *steps);   /* all that can come now */
void step_make(const struct step *step);

#endif
