/* libsaga: all that the author of a service reads.
 *
 * A service is data: one struct saga_service, run by saga_main(). The engine takes a batch of inputs
 * (events, requests, deadlines, answers of outside calls), loads the rows they name, calls one rule
 * for each input in order, and stores what the rules changed and emitted: one transaction, exactly
 * once.
 *
 * A rule is a pure function of its step: no I/O, clock, randomness or static variables, and nothing
 * about offsets, duplicates, outbox, tracing or retry. It runs again, on fresh rows, if the
 * transaction fails.
 *
 * Memory: whatever a rule is given or makes lives in the batch's arena. Free nothing, keep no
 * pointer.
 */
#ifndef SAGA_H
#define SAGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Fields: one table says how a struct looks in C, in JSON, in SQL and in schemas/ ---- */

enum saga_type {
    SAGA_ID,     /* const char *, [A-Za-z0-9._:-]{1,64}                      text        */
    SAGA_TEXT,   /* const char *, min..max code points of UTF-8 without NUL  text        */
    SAGA_CODE,   /* const char *, min..max capital letters A-Z               text        */
    SAGA_INT,    /* int64_t, min..max                                        bigint      */
    SAGA_BOOL,   /* bool                                                     boolean     */
    SAGA_TIME,   /* int64_t, microseconds since 1970; JSON: RFC 3339, UTC    timestamptz */
    SAGA_NAME,   /* int, index into names                                    text        */
    SAGA_OBJECT, /* struct, its members in of                                json        */
    SAGA_LIST,   /* struct { int n; T *at; }, min..max items of T            json        */
};

struct saga_field {
    const char *name;
    size_t at; /* offset in the struct */
    enum saga_type type;
    int64_t min, max;
    const struct saga_field *of; /* OBJECT, LIST: the members, up to {0} */
    size_t size;                 /* LIST: sizeof(T) */
    const char *const *names;    /* NAME: up to NULL; [0] may be "" for none */
    bool optional;               /* absent or null reads as NULL, 0, no items; and back */
    bool fixed;                  /* a column that is written when the row is made, never after */
};

#define SAGA_AT(type, member) #member, offsetof(type, member)

/* An event, a request, an outside call or its answer. order_id is not among the fields: it is the
 * key. Two events may share a struct; each has its own fields of it. */
struct saga_event {
    const char *type; /* "OrderCreated" */
    size_t size;
    const struct saga_field *fields;
    bool (*check)(const void *data, const char **why); /* what fields cannot say, or NULL */
};

/* ---- Rows ---- */

/* First member of every row. Rows of orders use all of it, shared rows only key, stored, changed.
 * The engine sets created, cause and trace; a table has columns for those it wants kept. */
struct saga_row {
    const char *key;
    int64_t lane;
    int state;         /* 0 is "none" */
    int64_t due;       /* when saga_due comes for this row, microseconds since 1970; 0 is never */
    int64_t created;   /* the batch's clock when the row was made */
    const char *cause; /* id of the newest event or request that changed the row, */
    const char
        *trace;  /* and its traceparent, or NULL: what is emitted at a due or an answer has these */
    bool stored; /* is in the database */
    bool changed;
};

/* A table: its struct, its columns (the key first), its SQL. A key named by the batch but not in the
 * database is a zeroed row with stored = false, so a rule never meets a row that is missing.
 * Columns are passed in the table's order as arrays, one element for each row. */
struct saga_table {
    size_t size;
    const struct saga_field *columns;
    const char *load;   /* returns the columns. $1 text[]: keys named; shared: $2 text[]: orders */
    const char *insert; /* $1..$n: every column */
    const char *update; /* $1..$m: the key and the columns that are not fixed */
};

/* ---- Rules ---- */

struct saga_step {
    const char *key;                /* the order */
    const struct saga_event *input; /* what came, */
    const void *data;               /* read into its struct */
    const void *row;                /* this order's row; saga_change() to write */
    int64_t now;       /* the database's clock, one value for the batch, microseconds */
    const char *id;    /* of the input: event id, or topic/partition/offset; else the row's cause */
    const char *trace; /* traceparent, or NULL */
    struct saga_batch *batch;
};

typedef void saga_cell(struct saga_step *step);

enum { SAGA_STATES = 10 };

struct saga_rule {
    const struct saga_event *input;
    saga_cell *cell[SAGA_STATES]; /* by state; one for each state of the service */
};

saga_cell saga_nothing;    /* "-" */
saga_cell saga_impossible; /* parked and logged as a bug of ours */

/* The verbs. They cannot fail: out of memory ends the process, and the database knows nothing of it. */
void *
saga_change(struct saga_step *step); /* this order's row, to be stored; step->row is the same */
const void *saga_see(const struct saga_step *step,
                     const char *key);                     /* a shared row that was named */
void *saga_share(struct saga_step *step, const char *key); /* the same, to be stored */
void *saga_append(struct saga_step *step, void *list, size_t size); /* a zeroed item at its end */
void saga_log(struct saga_step *step, const void *row);             /* a row of the log table */
void saga_emit(struct saga_step *step, const struct saga_event *event, const void *data);
void saga_call(struct saga_step *step, const struct saga_event *call, const void *data);

extern const struct saga_event saga_due; /* row.due has passed; it is 0 before the rule runs */

/* Backoff before try n (1, 2, ...): first x 2^(n-1), at most last, less up to a quarter that is a
 * hash of key and n. -> microseconds, as first and last are. */
int64_t saga_backoff(const char *key, int64_t n, int64_t first, int64_t last);

/* ---- Outside calls: made after COMMIT on threads of their own, perhaps more than once. A rule that
 * calls also sets row.due, so that saga_due comes if no answer does (crash, time-out): call again.
 * ---- */

struct saga_call {
    const char *key; /* the order */
    const struct saga_event *call;
    const void *data;
    int64_t since; /* CLOCK_BOOTTIME, us: when the batch that wants it began; 0: now */
};

/* From any thread, once per call, or never. Copies. An answer that no rule names is a bug: asserted. */
void saga_answer(const struct saga_call *call, const struct saga_event *answer, const void *data);

/* ---- The service ---- */

struct saga_setting {                /* an environment variable, listed by --help */
    const char *name, *value, *help; /* value is the default; help NULL: it is listed elsewhere */
    int64_t *to, min, max;           /* a number; or */
    const char **text;               /* a text, */
    const char *const *names;        /* one of these up to NULL; or NULL: not checked */
};

struct saga_route; /* http.h */
struct saga_conf;  /* conf.h */
struct saga_err;   /* err.h */

struct saga_service {
    const char *
        name; /* "order": of order-svc, its topics order.events and order.dlq, its schema order_svc */
    const char *about;                       /* a line for --help */
    const char *requests;                    /* topic of requests, or NULL; */
    const struct saga_event *const *accepts; /* what may stand in it, up to NULL; */
    const struct saga_event *creates;        /* the one that may come without order_id */
    const char *const *events;               /* topics of events, <service>.events, up to NULL */
    const char *const *states;               /* up to NULL; [0] is none */
    const struct saga_rule *rules;           /* up to {0} */
    const struct saga_event *const *emits;   /* up to NULL */
    const struct saga_table *orders, *shared, *log; /* shared, log: or NULL */
    /* Calls share() for each shared row that the input names. step->row is NULL if the order's row is
     * not in memory yet. -> false if more rows are meant, which only the order's row in the database
     * names: the key goes to $2 of shared's load. NULL where nothing is shared. */
    bool (*names)(const struct saga_step *step,
                  void (*share)(const struct saga_step *step, const char *key));
    /* $1 int[] lanes, $2 timestamptz, $3 text[] keys to leave out -> keys of orders that table due
     * names and that are due, oldest first, and since when (bigint, us since 1970), at most 500. NULL: the
     * service has no deadlines. */
    const char *due;
    /* Outside calls, on a thread of their own: saga_answer() for each. NULL: the service makes none. */
    void (*call)(const struct saga_call *calls, int n);
    /* For a cache of shared rows, each may be NULL. start: once, when the settings are read, before HTTP;
     * -> 0, or SAGA_FATAL: a setting is wrong. storing: the shared rows that a batch has changed,
     * before its COMMIT is sent, and the session in which it is, a process id of the server's; stored:
     * whether it was committed, and whether that is known: else it may be, or still come. Both on the
     * engine's thread, which they must not keep. stop: nothing is written any more. */
    int (*start)(const struct saga_conf *conf, struct saga_err *err);
    void (*stop)(void);
    void (*storing)(const void *const *rows, int n, int session);
    void (*stored)(bool committed, bool known);
    /* A line of what works worse than it should, for /readyz, or NULL: nothing. Any thread. */
    const char *(*degraded)(char *text, size_t n);
    const char *const
        *migrations; /* SQL of sql/NNN.sql, in order, up to NULL: sql.h, made by make */
    const struct saga_route *routes;     /* up to {0} */
    const struct saga_setting *settings; /* up to {0}, or NULL */
    /* Whether the settings fit each other, at start, once they are read. *why: a line that names the
     * variable. NULL: they always do. */
    bool (*fits)(const char **why);
    int64_t http_port; /* default of HTTP_LISTEN */
};

/* Runs the service until SIGTERM. -> exit status: 0, 78 (a setting is wrong), 70 (see the log). */
int saga_main(int argc, char **argv, const struct saga_service *service);

#endif
