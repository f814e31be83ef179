/* PostgreSQL by libpq: connections, pipelines and binary results. See pg.h. */
#include "pg.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATEMENTS = 64 };

enum prepared { UNKNOWN, ASKED, PREPARED };

struct statement {
    const char *sql; /* by address */
    enum prepared state;
};

struct saga_pg {
    PGconn *conn;
    char *conninfo, *name, *schema;
    const char *session;
    int patience; /* ms, -1: none */
    struct statement known[STATEMENTS];
    int known_n;
    /* the pipeline: what each result to come is */
    struct expected {
        int statement;
        bool prepare;
    } expected[STATEMENTS * 2];
    int expected_n, got;
    PGresult *result[STATEMENTS];
    int result_n;
    bool unsent, broken;
    int failed;
    struct saga_err err;
};

struct saga_pg *saga_pg_new(const char *conninfo, const char *name, const char *schema)
{
    struct saga_pg *pg = saga_alloc(sizeof *pg);

    *pg = (struct saga_pg){.conninfo = saga_strdup(conninfo),
                           .name = saga_strdup(name),
                           .schema = saga_strdup(schema),
                           .patience = -1,
                           .failed = -1};
    return pg;
}

void saga_pg_session(struct saga_pg *pg, const char *sql)
{
    pg->session = sql;
}

void saga_pg_patience(struct saga_pg *pg, int ms)
{
    pg->patience = ms;
}

static void clear_results(struct saga_pg *pg)
{
    for (int i = 0; i < pg->result_n; i++)
        PQclear(pg->result[i]);
    pg->result_n = pg->expected_n = pg->got = 0;
    pg->failed = -1;
    pg->broken = false;
    pg->err.code = 0;
}

void saga_pg_close(struct saga_pg *pg)
{
    clear_results(pg);
    PQfinish(pg->conn);
    pg->conn = NULL;
    pg->known_n = 0;
    pg->unsent = false;
}

void saga_pg_free(struct saga_pg *pg)
{
    if (!pg)
        return;
    saga_pg_close(pg);
    free(pg->conninfo), free(pg->name), free(pg->schema);
    free(pg);
}

bool saga_pg_connected(const struct saga_pg *pg)
{
    return pg->conn && PQstatus(pg->conn) == CONNECTION_OK;
}

void saga_pg_freshen(struct saga_pg *pg)
{
    struct pollfd fd = {.fd = saga_pg_socket(pg), .events = POLLIN};

    if (pg->conn && poll(&fd, 1, 0) > 0)
        saga_pg_close(
            pg); /* what it says unasked is that it ends, or nothing that a new one does not know */
}

int saga_pg_pid(const struct saga_pg *pg)
{
    return pg->conn ? PQbackendPID(pg->conn) : 0;
}

int saga_pg_socket(const struct saga_pg *pg)
{
    return pg->conn ? PQsocket(pg->conn) : -1;
}

short saga_pg_events(const struct saga_pg *pg)
{
    return (short)(pg->unsent ? POLLIN | POLLOUT : POLLIN);
}

/* libpq's messages have several lines. */
static const char *one_line(char *out, size_t n, const char *text)
{
    size_t i = 0;

    for (; *text && i + 1 < n; text++)
        out[i++] = *text == '\n' ? ' ' : *text;
    while (i && out[i - 1] == ' ')
        i--;
    out[i] = '\0';
    return out;
}

static int lost(struct saga_pg *pg, struct saga_err *err)
{
    char line[200];

    saga_err(err, SAGA_RETRY, "database: %s",
             one_line(line, sizeof line, pg->conn ? PQerrorMessage(pg->conn) : "not connected"));
    saga_pg_close(pg);
    return SAGA_RETRY;
}

/* Without libpq's words, which quote what they do not understand: it may be the password. */
int saga_pg_check(const char *conninfo, struct saga_err *err)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    const char *why = options ? NULL : "expected postgres://user:password@host/database";

    for (PQconninfoOption *o = options; o && o->keyword; o++)
        if (strcmp(o->keyword, "host") == 0 && o->val && strchr(o->val, '@'))
            why = "a password with @ is written with %40";
    PQconninfoFree(options);
    return why ? saga_err(err, SAGA_FATAL,
                          "DATABASE_URL: %s; special characters are %%XX, as in all URLs", why)
               : 0;
}

/* What is told to others after COMMIT must not be lost by a crash, whatever the server, the database or
 * the role say; what is stricter stays. */
static const char durable[] = "select set_config('synchronous_commit', 'on', false)"
                              " where current_setting('synchronous_commit') in ('off', 'local')";

int saga_pg_connect(struct saga_pg *pg, struct saga_err *err)
{
    char options[200];
    const char *keys[] = {"dbname",
                          "application_name",
                          "client_encoding",
                          "options",
                          "connect_timeout",
                          "tcp_user_timeout",
                          "keepalives_idle",
                          "keepalives_interval",
                          "target_session_attrs",
                          NULL};
    /* of a server that is gone without a word we hear soon; of several we take one that writes */
    const char *values[] = {pg->conninfo, pg->name, "UTF8", options,      "5",
                            "10000",      "5",      "5",    "read-write", NULL};

    if (saga_pg_connected(pg))
        return 0;
    saga_pg_close(pg);
    snprintf(options, sizeof options,
             "-c search_path=%s -c timezone=UTC -c client_min_messages=error", pg->schema);
    pg->conn = PQconnectdbParams(keys, values, 1); /* an empty dbname: libpq's PG* alone */
    if (!pg->conn || PQstatus(pg->conn) != CONNECTION_OK)
        return lost(pg, err);
    if (saga_pg_script(pg, durable, err) < 0 ||
        (pg->session && saga_pg_script(pg, pg->session, err) < 0)) {
        saga_pg_close(pg);
        return SAGA_RETRY;
    }
    if (!PQenterPipelineMode(pg->conn) || PQsetnonblocking(pg->conn, 1) != 0)
        return lost(pg, err);
    return 0;
}

/* ---- Pipeline ---- */

static int statement_of(struct saga_pg *pg, const char *sql)
{
    for (int i = 0; i < pg->known_n; i++)
        if (pg->known[i].sql == sql)
            return i;
    if (pg->known_n == STATEMENTS)
        abort(); /* a statement that is not static */
    pg->known[pg->known_n] = (struct statement){sql, UNKNOWN};
    return pg->known_n++;
}

int saga_pg_send(struct saga_pg *pg, const char *sql, const struct saga_params *p,
                 struct saga_err *err)
{
    static const struct saga_params none;
    Oid oids[SAGA_PARAMS_MAX];
    const char *values[SAGA_PARAMS_MAX];
    int lengths[SAGA_PARAMS_MAX], formats[SAGA_PARAMS_MAX];
    char name[16];
    int rc;

    /* Never in the middle: what follows BEGIN would run on another connection, without it. */
    if (pg->conn && PQstatus(pg->conn) != CONNECTION_OK)
        return lost(pg, err);
    if ((rc = saga_pg_connect(pg, err)) < 0)
        return rc;
    if (pg->got == pg->expected_n)
        clear_results(pg); /* of the pipeline before */
    if (!p)
        p = &none;
    for (int i = 0; i < p->n; i++) {
        oids[i] = p->param[i].oid;
        values[i] = p->param[i].len < 0 ? NULL : p->bytes.at ? p->bytes.at + p->param[i].at : "";
        lengths[i] = p->param[i].len < 0 ? 0 : p->param[i].len;
        formats[i] = 1;
    }
    int s = statement_of(pg, sql);
    snprintf(name, sizeof name, "s%d", s);
    if (pg->known[s].state == UNKNOWN) {
        if (!PQsendPrepare(pg->conn, name, sql, p->n, oids))
            return lost(pg, err);
        pg->known[s].state = ASKED;
        pg->expected[pg->expected_n++] = (struct expected){s, true};
    }
    if (!PQsendQueryPrepared(pg->conn, name, p->n, values, lengths, formats, 1))
        return lost(pg, err);
    pg->expected[pg->expected_n++] = (struct expected){s, false};
    return 0;
}

int saga_pg_sent(const struct saga_pg *pg)
{
    int n = 0;

    if (pg->got == pg->expected_n)
        return 0; /* what is expected is of the pipeline before */
    for (int i = 0; i < pg->expected_n; i++)
        n += !pg->expected[i].prepare;
    return n;
}

int saga_pg_sync(struct saga_pg *pg, struct saga_err *err)
{
    if (!pg->conn || !PQpipelineSync(pg->conn))
        return lost(pg, err);
    int rc = PQflush(pg->conn);
    if (rc < 0)
        return lost(pg, err);
    pg->unsent = rc > 0;
    return 0;
}

static void note_error(struct saga_pg *pg, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    char line[200];
    bool content;

    state = state ? state : "";
    content = !strncmp(state, "22", 2) || !strncmp(state, "23", 2);
    saga_err(&pg->err, content ? SAGA_POISON : SAGA_RETRY, "database: %s (SQLSTATE %s)",
             one_line(line, sizeof line, text ? text : PQresultErrorMessage(result)), state);
    pg->failed = pg->result_n;
    pg->broken = true;
}

/* Takes result: the next of those that the pipeline expects. */
static void take(struct saga_pg *pg, PGresult *result)
{
    const struct expected *e = &pg->expected[pg->got++];
    ExecStatusType status = PQresultStatus(result);
    bool good = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;

    if (!good && !pg->broken)
        note_error(pg, result);
    if (e->prepare)
        pg->known[e->statement].state = good ? PREPARED : UNKNOWN;
    if (e->prepare || !good)
        PQclear(result);
    else
        pg->result[pg->result_n++] = result;
}

int saga_pg_ready(struct saga_pg *pg, struct saga_err *err)
{
    if (!pg->conn)
        return lost(pg, err);
    if (pg->unsent) {
        int rc = PQflush(pg->conn);
        if (rc < 0)
            return lost(pg, err);
        pg->unsent = rc > 0;
    }
    if (!PQconsumeInput(pg->conn))
        return lost(pg, err);
    while (!PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn);
        if (!result) {
            if (PQstatus(pg->conn) == CONNECTION_BAD)
                return lost(pg, err);
            continue; /* the mark between two statements */
        }
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            if (!pg->broken)
                return 1;
            return saga_err(err, pg->err.code, "%s", pg->err.text);
        }
        if (pg->got == pg->expected_n) { /* FATAL from outside: the server ends the session */
            note_error(pg, result);
            PQclear(result);
            return lost(pg, err);
        }
        take(pg, result);
        if (PQstatus(pg->conn) == CONNECTION_BAD)
            return lost(pg, err);
    }
    return 0;
}

static int silent(struct saga_pg *pg, struct saga_err *err)
{
    saga_pg_close(pg);
    return saga_err(err, SAGA_RETRY, "database: no answer for %d ms", pg->patience);
}

int saga_pg_wait(struct saga_pg *pg, struct saga_err *err)
{
    int rc;

    while ((rc = saga_pg_ready(pg, err)) == 0) {
        struct pollfd fd = {saga_pg_socket(pg), saga_pg_events(pg), 0};
        int n = poll(&fd, 1, pg->patience);
        if (n < 0 && errno != EINTR)
            return lost(pg, err);
        if (n == 0)
            return silent(pg, err);
    }
    return rc < 0 ? rc : 0;
}

const struct saga_rows *saga_pg_result(const struct saga_pg *pg, int i)
{
    return i < pg->result_n ? (const struct saga_rows *)pg->result[i] : NULL;
}

int saga_pg_failed(const struct saga_pg *pg)
{
    return pg->failed;
}

/* ---- At once ---- */

int saga_pg_query(struct saga_pg *pg, const char *sql, const struct saga_params *p,
                  struct saga_rows **rows, struct saga_err *err)
{
    int rc;

    if (rows)
        *rows = NULL;
    if ((rc = saga_pg_send(pg, sql, p, err)) < 0 || (rc = saga_pg_sync(pg, err)) < 0 ||
        (rc = saga_pg_wait(pg, err)) < 0)
        return rc;
    if (rows) {
        *rows = (struct saga_rows *)pg->result[0];
        pg->result_n = 0;
    }
    return 0;
}

/* -> false: it does not answer, or is gone */
static bool answers(struct saga_pg *pg)
{
    while (PQisBusy(pg->conn)) {
        struct pollfd fd = {saga_pg_socket(pg), POLLIN, 0};
        int n = poll(&fd, 1, pg->patience);
        if (n == 0 || (n < 0 && errno != EINTR) || !PQconsumeInput(pg->conn))
            return false;
    }
    return true;
}

/* PQexec, for no longer than our patience. -> the first error or the last result; NULL: none comes */
static PGresult *execute(struct saga_pg *pg, const char *sql)
{
    PGresult *kept = NULL, *next;

    if (!PQsendQuery(pg->conn, sql))
        return NULL;
    while (answers(pg) && (next = PQgetResult(pg->conn))) {
        bool failed = kept && PQresultStatus(kept) == PGRES_FATAL_ERROR;
        PQclear(failed ? next : kept);
        kept = failed ? kept : next;
    }
    if (!PQisBusy(pg->conn))
        return kept;
    PQclear(kept);
    return NULL;
}

int saga_pg_script(struct saga_pg *pg, const char *sql, struct saga_err *err)
{
    PGresult *result;
    int rc = 0;
    bool pipeline = pg->conn && PQpipelineStatus(pg->conn) != PQ_PIPELINE_OFF;

    if (!pg->conn)
        return lost(pg, err);
    if (pipeline && (PQexitPipelineMode(pg->conn) == 0 || PQsetnonblocking(pg->conn, 0) != 0))
        return lost(pg, err);
    result = execute(pg, sql);
    if (!result)
        return PQstatus(pg->conn) == CONNECTION_BAD ? lost(pg, err) : silent(pg, err);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK) {
        clear_results(pg);
        note_error(pg, result);
        rc = saga_err(err, pg->err.code, "%s", pg->err.text);
    }
    PQclear(result);
    if (PQstatus(pg->conn) == CONNECTION_BAD)
        return lost(pg, err);
    if (pipeline && (!PQenterPipelineMode(pg->conn) || PQsetnonblocking(pg->conn, 1) != 0))
        return lost(pg, err);
    return rc;
}

/* ---- Results ---- */

static const PGresult *result_of(const struct saga_rows *rows)
{
    return (const PGresult *)rows;
}

int saga_rows_n(const struct saga_rows *rows)
{
    return PQntuples(result_of(rows));
}

bool saga_rows_null(const struct saga_rows *rows, int i, int column)
{
    return PQgetisnull(result_of(rows), i, column);
}

const char *saga_rows_bytes(const struct saga_rows *rows, int i, int column, int *n)
{
    bool null = saga_rows_null(rows, i, column);

    *n = null ? -1 : PQgetlength(result_of(rows), i, column);
    return null ? NULL : PQgetvalue(result_of(rows), i, column);
}

const char *saga_rows_text(const struct saga_rows *rows, int i, int column)
{
    return saga_rows_null(rows, i, column) ? NULL : PQgetvalue(result_of(rows), i, column);
}

int64_t saga_rows_int(const struct saga_rows *rows, int i, int column)
{
    int n;
    const char *s = saga_rows_bytes(rows, i, column, &n);
    uint16_t v2;
    uint32_t v4;
    uint64_t v8;

    switch (n) {
    case 2:
        memcpy(&v2, s, 2);
        return (int16_t)ntohs(v2);
    case 4:
        memcpy(&v4, s, 4);
        return (int32_t)ntohl(v4);
    case 8:
        memcpy(&v8, s, 8);
        return (int64_t)be64toh(v8);
    default:
        return 0;
    }
}

int64_t saga_rows_time(const struct saga_rows *rows, int i, int column)
{
    if (saga_rows_null(rows, i, column))
        return 0;
    return saga_rows_int(rows, i, column) + SAGA_PG_EPOCH;
}

bool saga_rows_bool(const struct saga_rows *rows, int i, int column)
{
    int n;
    const char *s = saga_rows_bytes(rows, i, column, &n);

    return n == 1 && *s;
}

int saga_rows_affected(const struct saga_rows *rows)
{
    return atoi(PQcmdTuples((PGresult *)(uintptr_t)rows));
}

void saga_rows_free(struct saga_rows *rows)
{
    PQclear((PGresult *)rows);
}
