/* Points between the durable steps of a service at which a test lets its process die or stand still.
 * In a normal build they are nothing. Compiled with -DSAGA_FAILPOINTS (Makefile: build/failpoint/bin),
 * SAGA_FAIL=name[:n][:stop] in the environment kills the process with SIGKILL, or stops it with
 * SIGSTOP, when it passes the point for the nth time. Every point has its line here, and the live
 * suite `failpoints` has each process die at each of them: one that is never passed fails it.
 *
 * A point stands for what has just happened; what comes next has not. */
#ifndef SAGA_FAILPOINT_H
#define SAGA_FAILPOINT_H

/* clang-format off */
#define SAGA_FAILPOINTS_ALL(X)                                                          \
    /* start */                                                                         \
    X(migrating)           /* migrations have run, COMMIT has not */                    \
    X(migrated)            /* and now it has */                                         \
    X(identified)          /* row of identity is written */                             \
    /* a lane is taken */                                                               \
    X(term_sent)           /* the transaction that raises the term, with its COMMIT */  \
    X(term_raised)         /* that is confirmed */                                      \
    X(republishing)        /* a committed row was read back and is not sent */          \
    X(republished)         /* all of a lane's are handed to the producer */             \
    X(lane_taken)                                                                       \
    /* a batch */                                                                       \
    X(screened)            /* nothing is asked of the database yet */                   \
    X(load_sent)           /* BEGIN, locks and loads */                                 \
    X(loaded)                                                                           \
    X(decided)                                                                          \
    X(store_begun)         /* the service's statements, not the engine's, not COMMIT */ \
    X(commit_sent)                                                                      \
    X(committed)           /* that is confirmed, memory has not moved */                \
    X(publishing)          /* nothing of several rows is given to the producer */       \
    X(first_published)     /* the first of several rows is */                           \
    X(last_publishing)     /* all but the last one are */                               \
    X(published)           /* all are */                                                \
    X(letter_publishing)   /* a dead letter's row is committed and not sent */          \
    X(letter_published)                                                                 \
    X(forward_publishing)  /* as is a misplaced request's */                            \
    X(forward_published)                                                                \
    X(report_received)     /* an event is in Kafka, only Kafka knows */                 \
    X(report_counted)      /* published has moved in memory */                          \
    X(published_storing)   /* and is about to be stored by a batch of its own */        \
    X(published_stored)                                                                 \
    /* deadlines and outside calls */                                                   \
    X(due_stored)          /* a row with a deadline is committed */                     \
    X(due_asked)           /* its time has come, and the engine has seen it */          \
    X(due_forgetting)      /* and what it announced has been found */               \
    X(due_forgotten)       /* table due is tidied up */                                 \
    X(calls_handing)       /* the intent is committed, no caller knows */               \
    X(calls_handed)                                                                     \
    X(call_begun)          /* in a caller's thread */                                   \
    X(call_booked)         /* in the provider's books, nobody is told */                \
    X(answer_queued)                                                                    \
    X(answers_taken)       /* by the engine, for its next batch */                      \
    /* parking */                                                                       \
    X(parked)              /* an input is in table parked, memory does not know */      \
    X(redrive_marked)      /* by HTTP, and nobody has answered */                       \
    X(redriven)            /* applied, and out of the table */                          \
    /* HTTP */                                                                          \
    X(lane_commanded)      /* an operator's change of a lane's rows, unanswered */      \
    X(stock_written)       /* a POST of stock, before its COMMIT */                     \
    X(stock_committed)     /* and before its answer */                                  \
    X(stock_read)          /* for a cache, which does not have it yet */                \
    /* housekeeping */                                                                  \
    X(offsets_committing)                                                               \
    X(offsets_committed)                                                                \
    X(rotating)            /* it is time to truncate the other outbox */                \
    X(rotated)                                                                          \
    /* SIGTERM */                                                                       \
    X(stopping)            /* the last batch is done */                                 \
    X(settled)             /* reports have come and are stored */                       \
    X(closed)              /* the group is left */
/* clang-format on */

#define SAGA_FAILPOINT_NUMBER(name) SAGA_AT_##name,
enum saga_failpoint { SAGA_FAILPOINTS_ALL(SAGA_FAILPOINT_NUMBER) SAGA_FAILPOINTS_N };

#ifdef SAGA_FAILPOINTS
void saga_failpoint(enum saga_failpoint point);
#define SAGA_FAILPOINT(name) saga_failpoint(SAGA_AT_##name)
#else
#define SAGA_FAILPOINT(name) ((void)SAGA_AT_##name)
#endif

#endif
