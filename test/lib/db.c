/* PostgreSQL from outside. See db.h. */
#include "db.h"

#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

enum { PATIENCE = 20000000 /* us */ };

struct db {
    char *database;
    PGconn *conn;
};

struct db *db_new(const char *database)
{
    struct db *db = calloc(1, sizeof *db);

    MUST(db != NULL, "out of memory");
    db->database = database ? strdup(database) : NULL;
    return db;
}

void db_free(struct db *db)
{
    if (!db)
        return;
    PQfinish(db->conn);
    free(db->database);
    free(db);
}

static void ignore(void *unused, const char *notice)
{
    (void)unused, (void)notice;
}

static void connect_to(struct db *db)
{
    const char *const names[] = {"dbname", "application_name", db->database ? "dbname" : NULL,
                                 NULL};
    const char *const values[] = {getenv("PGDATABASE"), "test", db->database, NULL};

    PQfinish(db->conn);
    db->conn = PQconnectdbParams(names, values, 1);
    PQsetNoticeProcessor(db->conn, ignore, NULL);
    if (PQstatus(db->conn) == CONNECTION_OK)
        PQclear(PQexec(db->conn, "set client_min_messages = warning; set lock_timeout = '20s';"
                                 "set search_path = order_svc, inventory_svc, payment_svc"));
}

/* Repeats what failed for the connection's sake only: what tests ask can be asked twice. */
static PGresult *run(struct db *db, const char *format, va_list args)
{
    int64_t until = test_now() + PATIENCE;
    char *sql;

    MUST(vasprintf(&sql, format, args) >= 0, "out of memory");
    for (;;) {
        if (!db->conn || PQstatus(db->conn) != CONNECTION_OK)
            connect_to(db);
        if (PQstatus(db->conn) == CONNECTION_OK) {
            PGresult *r = PQexec(db->conn, sql);
            ExecStatusType status = PQresultStatus(r);
            if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
                free(sql);
                return r;
            }
            PQclear(r);
            MUST(PQstatus(db->conn) != CONNECTION_OK, "%s%s", PQerrorMessage(db->conn),
                 text("%s", sql));
        }
        MUST(test_pause(until), "database: %s", PQerrorMessage(db->conn));
    }
}

void db_run(struct db *db, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PQclear(run(db, format, args));
    va_end(args);
}

void db_drop(struct db *db, const char *name)
{
    db_run(db,
           "select pg_terminate_backend(pid) from pg_stat_activity"
           " where datname = '%s' and usename = current_user",
           name);
    db_run(db, "drop database if exists %s", name);
}

static const char *first(const PGresult *r)
{
    return PQntuples(r) == 0 || PQgetisnull(r, 0, 0) ? NULL : text("%s", PQgetvalue(r, 0, 0));
}

int64_t db_int(struct db *db, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PGresult *r = run(db, format, args);
    va_end(args);
    const char *value = first(r);
    PQclear(r);
    return value ? strtoll(value, NULL, 10) : 0;
}

const char *db_text(struct db *db, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    PGresult *r = run(db, format, args);
    va_end(args);
    const char *value = first(r);
    PQclear(r);
    return value;
}

void db_start(struct db *db, const char *sql)
{
    if (!db->conn)
        connect_to(db);
    MUST(PQsendQuery(db->conn, sql), "%s", PQerrorMessage(db->conn));
}

bool db_finished(struct db *db)
{
    PGresult *r;

    MUST(PQconsumeInput(db->conn), "%s", PQerrorMessage(db->conn));
    while (!PQisBusy(db->conn)) {
        if (!(r = PQgetResult(db->conn)))
            return true;
        ExecStatusType status = PQresultStatus(r);
        PQclear(r);
        MUST(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, "%s",
             PQerrorMessage(db->conn));
    }
    return false;
}

bool db_lost(struct db *db)
{
    PQclear(PQexec(db->conn, "select"));
    return PQstatus(db->conn) == CONNECTION_BAD;
}
