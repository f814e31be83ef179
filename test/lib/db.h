/* PostgreSQL from outside, by libpq. A lost connection is made anew, for at most 20 s. */
#ifndef DB_H
#define DB_H

#include <stdbool.h>
#include <stdint.h>

struct db;

struct db *db_new(const char *database); /* NULL: that of PGDATABASE. Connects on demand */
void db_free(struct db *db);

void db_run(struct db *db, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends its sessions and waits for a worker of autovacuum, which FORCE does not ("must be a member of the role"). */
void db_drop(struct db *db, const char *name);
/* The first column of the first row. No row, null: 0, NULL. A text lives as a text() does. */
int64_t db_int(struct db *db, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *db_text(struct db *db, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends one or more statements, and does not wait; nothing else is asked until it is finished. */
void db_start(struct db *db, const char *sql);
bool db_finished(struct db *db);
bool db_lost(struct db *db); /* its session has been ended */

#endif
