/* PostgreSQL: the only caller of libpq. A connection, prepared statements sent as pipelines ended
 * by a Sync, parameters and results in binary. One thread per connection.
 *
 * Synchronous use (http handlers, provider):
 *     struct saga_params p = {0};                      (or static, reset by saga_params_reset)
 *     saga_param_text(&p, id);
 *     struct saga_rows *rows;
 *     int rc = saga_pg_query(pg, "select ... where order_id = $1", &p, &rows, err);
 *     for (int i = 0; i < saga_rows_n(rows); i++) saga_rows_text(rows, i, 0) ...
 *     saga_rows_free(rows);
 * A statement is prepared at its first use on a connection, by the address of its SQL text: pass
 * the same static string each time. After SAGA_RETRY with a lost connection the next call
 * reconnects. */
#ifndef SAGA_PG_H
#define SAGA_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "mem.h"
#include "saga.h"

struct saga_pg;
struct saga_rows; /* one statement's result */

/* conninfo: DATABASE_URL or "" for libpq's PG* variables. name: application_name. schema:
 * search_path. Does not connect. */
struct saga_pg *saga_pg_new(const char *conninfo, const char *name, const char *schema);
void saga_pg_session(struct saga_pg *pg, const char *sql); /* static: run after each connect */
/* So long a server that says nothing is waited for, then the session is lost; without it: for ever. */
void saga_pg_patience(struct saga_pg *pg, int ms);
/* -> 0; SAGA_FATAL: libpq could not read it. "": libpq's PG* alone */
int saga_pg_check(const char *conninfo, struct saga_err *err);
void saga_pg_free(struct saga_pg *pg);
int saga_pg_connect(struct saga_pg *pg,
                    struct saga_err *err); /* if it is not; -> 0, SAGA_RETRY, SAGA_FATAL */
void saga_pg_close(struct saga_pg *pg);
bool saga_pg_connected(const struct saga_pg *pg);
/* Between transactions: closes a session that the server has ended meanwhile, so that the next statement
 * begins a new one. */
void saga_pg_freshen(struct saga_pg *pg);
int saga_pg_pid(const struct saga_pg *pg);
int saga_pg_socket(const struct saga_pg *pg);
short saga_pg_events(const struct saga_pg *pg); /* POLLIN, and POLLOUT while something is unsent */

/* ---- Parameters ---- */
enum { SAGA_PARAMS_MAX = 24 };
#define SAGA_PG_EPOCH INT64_C(946684800000000) /* us: 2000, from which timestamps count */
struct saga_params {                           /* {0} is empty */
    struct saga_buf bytes;
    int n;
    struct saga_param {
        uint32_t oid;
        size_t at;
        int len;      /* -1: null */
        int elements; /* of an array being built */
    } param[SAGA_PARAMS_MAX];
};
void saga_params_reset(struct saga_params *p);
void saga_params_free(struct saga_params *p);
void saga_param_text(struct saga_params *p, const char *s); /* NULL: null */
void saga_param_int(struct saga_params *p, int64_t v);      /* bigint */
void saga_param_time(struct saga_params *p, int64_t us);    /* timestamptz, us since 1970 */
void saga_param_bool(struct saga_params *p, bool v);
/* An array: begin, then elements in order, then end. */
void saga_param_array(struct saga_params *p, uint32_t element_oid);
void saga_element_text(struct saga_params *p, const char *s,
                       int64_t n); /* NULL: null; n -1: strlen */
void saga_element_int(struct saga_params *p, int64_t v);
void saga_element_int4(struct saga_params *p, int32_t v);
void saga_element_column(struct saga_params *p, const struct saga_field *column, const void *row);
void saga_param_array_end(struct saga_params *p);
enum {
    SAGA_OID_BOOL = 16,
    SAGA_OID_BYTEA = 17,
    SAGA_OID_INT8 = 20,
    SAGA_OID_INT4 = 23,
    SAGA_OID_TEXT = 25,
    SAGA_OID_TIMESTAMPTZ = 1184,
    SAGA_OID_JSON = 114
};

/* ---- Pipeline ---- */
/* Appends a statement to the pipeline. */
int saga_pg_send(struct saga_pg *pg, const char *sql, const struct saga_params *p,
                 struct saga_err *err);
int saga_pg_sent(const struct saga_pg *pg); /* statements in it so far */
/* Ends it by a Sync and flushes. Results come by saga_pg_wait(). */
int saga_pg_sync(struct saga_pg *pg, struct saga_err *err);
/* Without blocking: -> 1 all results of the pipeline are there, 0 not yet (poll the socket), or an
 * error, and the whole pipeline has failed: SAGA_RETRY, or SAGA_POISON for SQLSTATE classes 22 and
 * 23 (the content, 4.7). err has SQLSTATE and text. A lost connection is closed. */
int saga_pg_ready(struct saga_pg *pg, struct saga_err *err);
int saga_pg_wait(struct saga_pg *pg, struct saga_err *err); /* the same, blocking, -> 0 */
const struct saga_rows *saga_pg_result(const struct saga_pg *pg,
                                       int i); /* of statement i, until the next send */
int saga_pg_failed(const struct saga_pg *pg);  /* number of the statement that failed, -1 */

/* ---- At once ---- */
int saga_pg_query(struct saga_pg *pg, const char *sql, const struct saga_params *p,
                  struct saga_rows **rows, struct saga_err *err); /* rows may be NULL */
int saga_pg_script(struct saga_pg *pg, const char *sql,
                   struct saga_err *err); /* several statements, text */

/* ---- Results (binary) ---- */
int saga_rows_n(const struct saga_rows *rows);
bool saga_rows_null(const struct saga_rows *rows, int i, int column);
const char *saga_rows_bytes(const struct saga_rows *rows, int i, int column,
                            int *n); /* as on the wire; n -1: null */
const char *saga_rows_text(const struct saga_rows *rows, int i,
                           int column); /* NULL: null; json too */
int64_t saga_rows_int(const struct saga_rows *rows, int i,
                      int column); /* int2, int4, int8; null is 0 */
int64_t saga_rows_time(const struct saga_rows *rows, int i, int column); /* us since 1970 */
bool saga_rows_bool(const struct saga_rows *rows, int i, int column);
int saga_rows_affected(const struct saga_rows *rows);
void saga_rows_free(struct saga_rows *rows);

#endif
