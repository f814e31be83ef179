/* A world in memory: the three services with their real rules, the real batch, screening and lane
 * rules; topics are arrays, rows live in the services' batches, the clock is stepped by the test,
 * and the provider keeps its books in a list. Nothing happens but by a move of the test, so that it
 * decides every order of delivery, every crash and every repetition, and can replay them.
 *
 * What is durable and what is memory is told apart as in the engine: a lane that is taken again
 * starts from what was stored with COMMIT. invariants.c looks at the world after every move; the
 * first thing that must not be is kept in failed. */
#ifndef SIM_H
#define SIM_H

#include "batch.h"
#include "events.h"
#include "screen.h"

enum { ORDER, INVENTORY, PAYMENT, SERVICES };
enum { LANES = 3, RULES_MAX = 16, EVENT_TYPES = 15 };
enum topic {
    REQUESTS,
    ORDER_EVENTS,
    INVENTORY_EVENTS,
    PAYMENT_EVENTS,
    ORDER_DLQ,
    INVENTORY_DLQ,
    PAYMENT_DLQ,
    TOPICS
};
extern const char *const topic_names[TOPICS];

/* ---- Topics ---- */

struct entry {
    struct saga_record record;
    bool asked;  /* requests: a producer's own record, not a forward of ours */
    int decided; /* requests: how often it came to a rule, or was buried, in a committed batch */
    unsigned bad, buried; /* events: by which services it was found outside the chain, and buried */
    const struct saga_event *event; /* of a service's own topic: what it is, */
    struct saga_id own, previous;   /* and its place in the chain */
};
struct partition {
    struct entry *at;
    int n, cap;
    struct saga_id newest; /* of the writer's events */
    bool holed;            /* a record was lost on the way and later ones were not */
};

/* ---- Services ---- */

struct row_out { /* an outbox row */
    struct saga_out out;
    const char *value;
    enum topic topic;
    struct saga_id previous; /* of an own event */
    const struct saga_event *event;
    bool landed; /* is in Kafka */
};
struct zombie { /* an old owner that still sends what it had in its queue */
    int from, to;
};
enum { ZOMBIES_MAX = 4 };

struct lane {
    /* durable */
    int64_t term, last_seq, published, published_offset;
    struct saga_id last, published_id;
    struct saga_input stored[SAGA_READS_MAX];
    struct saga_id stored_forwarded[LANES];
    struct row_out *outbox;
    int outbox_n, outbox_cap;
    /* memory of its owner */
    struct saga_reader reader, work;
    struct saga_id forwarded[LANES], work_forwarded[LANES];
    struct saga_outgoing out;
    bool in_batch, moved[SAGA_READS_MAX];
    int sent;         /* outbox rows handed to the producer */
    int64_t *offsets; /* of outbox rows by this owner's sending: -1 lost, -2 not sent */
    int acked;        /* outbox rows looked at by ack */
    bool lost;        /* must be taken again: a report did not count, or none comes */
    struct zombie zombie[ZOMBIES_MAX];
    int zombies;
};

/* One run of a rule's cell. */
struct note {
    const struct saga_in *in;
    const char *key, *id;
    int rule, before, after;
    int out, out_n, call, call_n;
    const char *wrong; /* what invariant 8 says of it, or NULL */
};

struct service {
    int number;
    struct saga_service as; /* its rules are probes around the real ones */
    struct saga_rule probes[RULES_MAX];
    const struct saga_rule *real;
    const struct sim_service *sim;
    struct saga_intake intake;
    struct saga_batch batch;
    struct lane lane[LANES];
    struct note *note;
    int note_n, note_cap;
    const void **first; /* rows as they were inserted, by slot: fixed columns are never updated */
    int first_n, first_cap;
};

/* What a service is to the simulation. */
struct sim_service {
    const struct saga_service *service; /* as in its main.c */
    /* Invariant 8, after a cell has run on the row was. -> what is wrong, or NULL */
    const char *(*judge)(const struct saga_step *step, const void *was, const char *emitted);
};
/* A cell that is replaced, so that a test can show that it fails. */
extern struct sim_broken {
    int service;
    const struct saga_event *input; /* NULL: none is */
    int state;
    saga_cell *cell;
} sim_broken;
extern const struct sim_service sim_order, sim_inventory, sim_payment;
extern const int sim_topic[SERVICES]; /* its events */

/* ---- The provider ---- */

struct pending { /* a call that was handed over */
    struct saga_call call;
    int lane;
    bool orphan; /* its caller's lane is another's now: it may still be made, nobody hears of it */
};
struct booked {      /* in the provider's ledger */
    const char *key; /* the order */
    bool refund;
    int64_t amount, refusals;
    const char *reason; /* NULL: the money has moved */
};
struct reply {
    const char *key;
    int lane;
    const struct saga_event *event;
    const void *data;
};
enum how {
    ANSWERED,        /* as the token says */
    APPLIED_UNKNOWN, /* done, and the caller told that it is not known */
    UNKNOWN_ONLY,    /* not done, and the same */
    APPLIED_SILENT,  /* done, and no answer */
    NEVER,           /* neither */
};

/* ---- What the topics have told of an order, counted when it is committed ---- */

struct tale {
    const char *key;
    int n[EVENT_TYPES]; /* by place in all_events */
};
struct moved { /* pieces of a SKU by stock movements */
    const char *sku;
    int64_t reserved, released, shipped;
};

struct sim_world {
    struct saga_arena arena;
    int64_t now; /* us */
    struct partition topic[TOPICS][LANES];
    struct service service[SERVICES];
    struct pending *pending;
    int pending_n, pending_cap;
    struct booked *ledger;
    int ledger_n, ledger_cap;
    struct reply *reply;
    int reply_n, reply_cap;
    struct tale *tale;
    int tales, tale_cap;
    struct moved *moved;
    int moved_n, moved_cap;
    bool tracing, moves; /* moves: the test's moves are traced, too */
    struct saga_buf trace;
    char failed[1024];                                /* "": all is well */
    int64_t events, duplicates, gaps, forwards, dead; /* counted for the summary */
};

#define ROOM_FOR(array, n, cap)                                                                    \
    ((n) < (cap) ? (void)0                                                                         \
                 : (void)((cap) = (cap) ? (cap)*2 : 16,                                            \
                          (array) = saga_realloc((array), (size_t)(cap) * sizeof *(array))))

void sim_init(struct sim_world *w, bool tracing);
void sim_free(struct sim_world *w);
void sim_fail(struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_say(struct sim_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define sim_move(w, ...) ((w)->moves ? sim_say(w, __VA_ARGS__) : (void)0)

int sim_lane(const char *key);
struct tale *sim_tale(struct sim_world *w, const char *key); /* until the next one */
const void *sim_row(const struct sim_world *w, int service, const char *key); /* or NULL */
const char *sim_state(const struct sim_world *w, int service, const char *key);

/* ---- Moves: producers ---- */

/* Appends a record; borrows nothing. -> its offset */
int64_t sim_append(struct sim_world *w, enum topic topic, int partition,
                   const struct saga_record *record);
/* A request; partition -1: where its key belongs. */
int64_t sim_request(struct sim_world *w, int partition, const char *key, const char *value);
/* Sets what is available, as POST /inventory does. */
void sim_stock(struct sim_world *w, const char *sku, int64_t available);

/* ---- Moves: a batch is gathered by read, due and reply, decided, and committed or not ---- */

int sim_unread(struct sim_world *w, int service, int lane, int input);
/* Screens up to k records of an input. -> how many were looked at */
int sim_read(struct sim_world *w, int service, int lane, int input, int k);
/* Screens a record that was read before: of requests, whose offset decides. */
void sim_read_stale(struct sim_world *w, int service, int lane, int input, int64_t offset);
void sim_due(struct sim_world *w, int service, const char *key);
void sim_reply(struct sim_world *w, int i); /* removes it from the replies */
void sim_decide(struct sim_world *w, int service);
void sim_commit(struct sim_world *w, int service);
void sim_abort(struct sim_world *w, int service);          /* ROLLBACK: nothing of it remains */
uint64_t sim_hash(const struct sim_world *w, int service); /* of what decide has made */

/* ---- Moves: publishing and owners (publish.c) ---- */

int sim_send(struct sim_world *w, int service, int lane, int k); /* -> rows sent, reports open */
int sim_zombie(struct sim_world *w, int service, int lane, int k);
void sim_ack(struct sim_world *w, int service, int lane, int k); /* up to k reports come */
/* The next row, one of the own topic, is lost; report: its offset as the library made it up, which
 * must not count, or INT64_MIN: none comes. -> false: there is none */
bool sim_lose(struct sim_world *w, int service, int lane, int64_t report);
/* The first request of a new producer is refused, and so nothing behind it goes (bus_send.c's gate), of
 * whatever kind; report as above. */
void sim_refuse(struct sim_world *w, int service, int lane, int64_t report);
/* A new owner: the lane as it was stored. zombie: the old one still sends its queue. */
void sim_take(struct sim_world *w, int service, int lane, bool zombie);
void sim_rewind(struct sim_world *w, int service, int lane, int input, int64_t offset);
void sim_overdue(struct sim_world *w, int service, int lane, int input);
/* Rows from their columns, as the database would give them back. */
void sim_reload(struct sim_world *w, int service, int lane);

/* ---- Moves: the provider (payment.c) ---- */

void sim_call(struct sim_world *w, int i, enum how how); /* removes it from the pending ones */
int64_t sim_money(const struct sim_world *w, const char *key); /* captured less refunded */

/* ---- invariants.c ---- */

void check_note(struct sim_world *w, struct service *s, const struct note *note);
void check_event(struct sim_world *w, struct service *s, int lane, struct row_out *row);
void check_landing(struct sim_world *w, struct service *s, int lane, const struct row_out *row);
void check_movement(struct sim_world *w, const void *row);
void check_world(struct sim_world *w, int service); /* after a step of it: invariants 1, 2 */
void check_end(struct sim_world *w);                /* nothing moves any more: 3, 7 */

/* How often a cell ran, over all worlds: by service, rule, state. */
typedef int64_t cells[SERVICES][RULES_MAX][SAGA_STATES];
extern cells cells_run;
/* Those that are not impossible and did not run, a line for each; what is not due has no cell. The
 * caller frees it. */
char *cells_unreached(cells run);

/* ---- Rows, for invariants.c: each service's own file knows its structs ---- */

struct order_view {
    int state; /* enum order_state */
    enum mode mode;
    bool requested;
    int64_t amount, due;
    const struct lines *lines;
};
struct reservation_view {
    int state; /* enum reservation_state */
    const struct lines *lines;
};
struct stock_view {
    int64_t available, reserved, shipped, received;
};
struct bill_view {
    int state; /* enum bill_state */
    bool cancel;
    int64_t amount;
};
struct movement_view {
    const char *sku, *kind;
    int64_t quantity;
};
enum order_state { O_NONE, O_CREATED, O_PAID, O_CANCELLING, O_CANCELLED, O_SHIPPED, O_COMPLETED };
enum reservation_state { R_NONE, R_HELD, R_FAILED, R_RELEASED, R_SHIPPED };
enum bill_state {
    B_NONE,
    B_AWAITING,
    B_REQUESTED,
    B_CHARGING,
    B_COMPLETED,
    B_FAILED,
    B_REFUNDING,
    B_REFUNDED,
    B_VOIDED
};
struct order_view order_view(const void *row);
struct reservation_view reservation_view(const void *row);
struct stock_view stock_view(const void *row);
void stock_put(void *row, int64_t available);
struct movement_view movement_view(const void *row);
struct bill_view bill_view(const void *row);

#endif
