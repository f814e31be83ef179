/* The engine: one thread that serves all lanes of a process (DESIGN.md 4.1). This header is private
 * to engine.c (the loop), run.c (the life of a batch), sending.c, take.c (taking lanes), loss.c (what a look
 * at Kafka means for them), view.c (what is shown). */
#ifndef SAGA_ENGINE_H
#define SAGA_ENGINE_H

#include <stdatomic.h>

#include "batch.h"
#include "bus.h"
#include "calls.h"
#include "conf.h"
#include "http.h"
#include "look.h"
#include "metrics.h"
#include "pg.h"
#include "recent.h"
#include "screen.h"

enum {
    SAGA_BATCH_BYTES = 2 * 1024 * 1024, /* of records */
    SAGA_DUE_MAX = 500,
};

enum saga_lane_state {
    SAGA_LANE_AWAY,    /* not assigned to us; memory is kept in case it comes back */
    SAGA_LANE_WANTED,  /* assigned, to be taken at try_at */
    SAGA_LANE_LOOKING, /* its term is ours; waits for what Kafka has of it, or for a second look */
    SAGA_LANE_RUNNING,
    SAGA_LANE_STOPPED, /* an operator decides: why says what was found */
};

struct saga_lane {
    int32_t lane;
    enum saga_lane_state state;
    bool ours;       /* assigned by the group */
    bool known;      /* term and what follows are what the database held when it was ours */
    bool paused;     /* at its limits: inputs wait for Kafka */
    bool in_batch;   /* work, writer are in use */
    bool dirty;      /* something moved that is not stored */
    int64_t storing; /* out.published as the batch stores it: reports go on meanwhile */
    uint32_t epoch;  /* of its readings: records collected before a seek are not of this one */
    int64_t term, last_seq;
    struct saga_id last; /* newest event on the own topic */
    struct saga_reader reader, work;
    bool moved[SAGA_READS_MAX];            /* inputs that are not stored as they are */
    bool alarmed[SAGA_READS_MAX];          /* their gap has been told */
    char forked[SAGA_READS_MAX][SAGA_WHY]; /* of a stopped input: what was found */
    uint32_t ticket;                       /* of its last look: answers of others are not for it */
    int64_t look_at;                       /* us, monotonic: the second look, 0: one is under way */
    enum saga_finding found;               /* by the first one */
    struct saga_id oldest, previous;       /* of the outbox, when Kafka was found behind */
    bool resend;                           /* what is above published is to be sent again */
    int64_t others; /* rows that are no events: in Kafka up to here, when events are not */
    struct saga_outgoing out;
    int64_t sent_at; /* us, monotonic: when the oldest unacknowledged was sent or one reported */
    int64_t waits_since;     /* the same, but only what was published ends it: not a new producer */
    int64_t try_at, backoff; /* us, monotonic; us */
    int64_t end
        [SAGA_READS_MAX]; /* where its inputs end, as last looked at: of those that are not read */
    int64_t parked_term;  /* the term in which its parked keys were asked for */
    char why[SAGA_WHY];
    char refused[128]; /* why the present producer cannot send for it, "": it can */
};

/* What was collected for one batch. */
struct saga_work {
    struct saga_arena arena;
    struct saga_read *read;
    int n, cap, from; /* [from, n) are to be done */
    size_t bytes;
};

/* An input that has waited in table parked and is to be applied, or dropped. */
struct saga_redriven {
    int32_t lane;
    int64_t term, n; /* n: its row's */
    bool drop;
    const char *why; /* it still cannot be read, or NULL */
    const char *key, *id, *trace;
    const struct saga_rule *rule;
    const void *data;
};

/* The orders that are parked in the lanes we own, and what an operator has asked for (park.c). */
struct saga_parking {
    struct saga_parked_key *bucket[64];
    int n;
    int64_t ask_at;          /* us, monotonic */
    struct saga_arena arena; /* of redriven */
    struct saga_redriven *redriven;
    int redriven_n, redriven_cap;
    char refused[65], why[256]; /* the order whose only input in the batch the database refuses */
};

struct saga_engine {
    const struct saga_service *service;
    const struct saga_conf *conf;
    struct saga_pg *pg;
    struct saga_bus *bus;
    struct saga_intake intake;
    struct saga_lane *lane;
    int32_t lanes;
    struct saga_id *written; /* by lane: how far its rows went when we last looked, for forwards */
    char history[40];
    struct saga_batch batch;
    struct saga_recent *recent;
    struct saga_work work[2], *now, *next;
    struct saga_answered *answers, **answers_end;
    int answers_n, answers_in;   /* there; of them, in the batch */
    struct saga_answered *aside; /* for lanes that are being taken */
    struct saga_parking parking;
    char **due; /* keys */
    int due_n;
    int64_t due_at;          /* us, monotonic: when to ask for keys that are due */
    int64_t clock;           /* database's clock minus monotonic, us, */
    int64_t loaded_at;       /* as it was then: us, monotonic */
    int slot;                /* of the outbox, as it was then */
    int doubts;              /* so many batches more ask for every row */
    bool presuming;          /* the batch has rows that are taken to be new */
    int wake;                /* eventfd: answers, SIGTERM */
    int collected;           /* records, since */
    int64_t counted_at;      /* us, monotonic */
    bool more;               /* Kafka has records that were not collected because next is full */
    int first;               /* of the topics of events: collected first */
    int64_t started, lasted; /* the last batch: us, monotonic; us */
    bool paced;              /* much comes: batches keep a distance */
    bool patient;            /* very much: records are read many at a time */
    int64_t flush_at;        /* dirty lanes are stored, 0: none */
    int64_t second_at;       /* housekeeping once a second */
    int64_t rotate_at;
    int64_t look_at; /* us, monotonic: lanes that run or have stopped are looked at */
    bool verified;   /* this is the Kafka that belongs to the database: since the last assignment */
    uint32_t identity_asked;         /* whether it is: the question's ticket, 0: none is open */
    bool misplaced;                  /* it is not */
    uint32_t tickets;                /* of looks */
    struct saga_look *looked;        /* answers */
    int64_t renew_at, renew_backoff; /* a new producer, not before */
    int64_t retry_at;                /* after a failed batch */
    int64_t failures;
    bool renew;
    int64_t acked_at; /* when Kafka last acknowledged anything, 0: never */
    struct saga_params params;
    struct saga_buf scratch;
    _Atomic bool stop;
    struct saga_metrics {
        saga_cell_t *in[SAGA_READS_MAX], *duplicates[SAGA_READS_MAX], *gaps[SAGA_READS_MAX],
            *lag[SAGA_READS_MAX];
        saga_cell_t *gaps_open[SAGA_READS_MAX], *inputs_stopped[SAGA_READS_MAX], *lanes_stopped,
            *found[SAGA_REQUESTS_LOST + 1], *healed;
        saga_cell_t *out, *dead, *forwards, *unpublished, *oldest, *outbox_age, *outbox_bytes,
            *batches, *failed, *calls, *answers, *due, *parked, *parked_orders;
        struct saga_histogram *batch_size, *batch_seconds;
        saga_cell_t *state[SAGA_STATES];
        struct saga_histogram *state_seconds[SAGA_STATES];
    } metric;
};

int64_t
saga_now(void); /* us, monotonic; goes on while the machine sleeps, as deadlines and keys do */

/* engine.c */
extern const struct saga_bus_events saga_engine_events; /* owner is to be set */
int saga_engine_loop(struct saga_engine *e,
                     struct saga_err *err); /* until stop; -> 0, SAGA_FATAL */
/* At the end: events on their way are waited for, at most wait us, and their acknowledgements are
 * stored, so that the next owner has nothing to send again. */
void saga_engine_settle(struct saga_engine *e, int64_t wait);
/* One turn of the loop: serves Kafka and answers, collects; waits at most wait us, or for fd (-1:
 * none). -> 0, SAGA_FATAL */
int saga_engine_turn(struct saga_engine *e, int64_t wait, int fd, short events,
                     struct saga_err *err);
/* Waits for the pipeline's results, turning. Ends sessions of ours that block it (4.4 step 1). */
int saga_engine_wait(struct saga_engine *e, struct saga_err *err);
int saga_engine_rollback(struct saga_engine *e, struct saga_err *err);
void saga_engine_stop_lane(struct saga_engine *e, struct saga_lane *lane, const char *why);
void saga_engine_lost_database(struct saga_engine *e);
void saga_engine_dirty(struct saga_engine *e, struct saga_lane *lane);

/* sending.c */
void saga_engine_send(struct saga_engine *e, const struct saga_delivery *d, struct saga_id own);
/* A delivery report, as saga_bus_events tells them; owner: the engine */
void saga_engine_reported(void *owner, int32_t lane, int64_t seq, int64_t offset,
                          const char *refused);
void saga_engine_silence(struct saga_engine *e,
                         int64_t now); /* once a second: who reports nothing */
int saga_engine_renew(struct saga_engine *e, int64_t now,
                      struct saga_err *err); /* if it is to be */
/* Waits, at most wait us. -> whether nothing of the lanes that are ours is on its way any more */
bool saga_engine_all_reported(struct saga_engine *e, int64_t wait, struct saga_err *err);

/* answers.c */
void saga_engine_take_answers(struct saga_engine *e); /* what callers have */
/* The answers that were in the batch, and the keys due and parked inputs. */
void saga_engine_forget(struct saga_engine *e);
/* Answers for lanes that are ours and not running, as after a lost connection, wait until those run. */
void saga_engine_put_aside(struct saga_engine *e);
void saga_engine_bring_back(struct saga_engine *e);

/* run.c */
int saga_engine_run(struct saga_engine *e, struct saga_err *err); /* now's records, due, answers */

/* load.c */
/* Rows from memory, which are taken to be new. now: us, monotonic. -> whether to load */
bool saga_load_prepare(struct saga_engine *e, int64_t now);
int saga_load(struct saga_engine *e, struct saga_err *err); /* -> 0, SAGA_FENCED: lanes were lost */
bool saga_load_presumed_well(const struct saga_engine *e);  /* after decide: INSERT will tell */
/* What was presumed is wrong, or may be: the batch runs again and asks. -> SAGA_FENCED */
int saga_load_doubt(struct saga_engine *e, struct saga_err *err);
int saga_load_guard(struct saga_engine *e,
                    struct saga_err *err); /* sends it, in place of loading */

/* store.c */
int saga_engine_store(struct saga_engine *e, bool guarded,
                      struct saga_err *err); /* to COMMIT's answer */

/* due.c */
int saga_due_store(struct saga_engine *e, struct saga_err *err); /* the batch's new deadlines */
int saga_due_ask(struct saga_engine *e, struct saga_err *err);   /* keys that are due, to e->due */

/* park.c */
void saga_park_screen(struct saga_engine *e); /* the batch's inputs of parked orders wait */
/* The batch's only input is what the database refuses: it is to be parked in the next run. */
int saga_park_refused(struct saga_engine *e, struct saga_err *err); /* -> SAGA_FENCED, SAGA_RETRY */
int saga_park_store(struct saga_engine *e,
                    struct saga_err *err);  /* what waits, and what no longer */
void saga_park_done(struct saga_engine *e); /* the batch is committed */
/* Which orders are parked in lanes taken since, and once a second what is to be redriven. */
int saga_park_ask(struct saga_engine *e, struct saga_err *err);
void saga_park_keys(const struct saga_engine *e, struct saga_params *p); /* a text[] of them */

/* take.c */
int saga_engine_take(struct saga_engine *e, struct saga_err *err); /* lanes whose try_at has come */
/* Asks for a look at the lane. search: the log for what the outbox begins with, too. */
void saga_engine_look(struct saga_engine *e, struct saga_lane *lane, enum saga_look_kind kind);
/* Nothing was found, or it was mended: publishes again if need be, reads. -> 0, SAGA_RETRY */
int saga_engine_start(struct saga_engine *e, struct saga_lane *lane, const struct saga_look *look,
                      struct saga_err *err);
void saga_engine_want(struct saga_engine *e, struct saga_lane *lane, bool soon); /* with backoff */

/* loss.c */
int saga_loss_judge(struct saga_engine *e, struct saga_err *err); /* the answers of looks */
void saga_loss_connection(struct saga_engine *e);                 /* to a broker: it was lost */
int saga_loss_watch(struct saga_engine *e, int64_t now, struct saga_err *err); /* once a second */
/* A fork was found: the input stops, its lane goes on. */
void saga_loss_fork(struct saga_engine *e, struct saga_lane *lane, const struct saga_read *read);
void saga_loss_gap(const struct saga_engine *e, const struct saga_lane *lane, int topic, char *why);

/* view.c */
void saga_view_init(struct saga_engine *e);
void saga_view_update(struct saga_engine *e); /* a few times a second, or if it is stale */
void saga_view_stale(void);                   /* lanes came or went: to be shown at once */
void saga_view_waits(const char *text);       /* what the engine waits for, NULL: nothing */
extern const struct saga_view saga_engine_view;
void saga_view_turned(void);

#endif
