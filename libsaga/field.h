/* Fields tables at work: struct <-> JSON, struct <-> SQL columns, copies, comparison, with limits
 * and errors that name the member. Pure. Who calls it: event.c, batch.c, engine.c, http handlers,
 * tests. A table has at most 63 fields.
 *
 * Errors are SAGA_POISON with the member's path and the values: "data.lines[0].quantity: 0 is below
 * 1". */
#ifndef SAGA_FIELD_H
#define SAGA_FIELD_H

#include "err.h"
#include "json.h"
#include "mem.h"
#include "saga.h"

/* ---- JSON ---- */

/* Reads the object at json's place into out (zeroed by the caller): the members of the table, each
 * once; unknown members are checked as JSON and ignored; a missing one that is not optional is an
 * error. path is the prefix for errors ("data"), "" for none. */
int saga_fields_read(const struct saga_field *fields, struct saga_json *json, const char *path,
                     void *out, struct saga_arena *arena, struct saga_err *err);

/* The same for a payload: the member order_id, which no table has, goes to *key (NULL before, and
 * if it is not there). */
int saga_fields_read_keyed(const struct saga_field *fields, struct saga_json *json,
                           const char *path, const char **key, void *out, struct saga_arena *arena,
                           struct saga_err *err);

/* Appends the members without braces, "a":1,"b":"x", optional ones that are empty left out.
 * -> number of members written. */
int saga_fields_write(const struct saga_field *fields, const void *in, struct saga_buf *out);

/* ---- Structs ---- */

/* A deep copy (strings, lists, objects) of a struct of size bytes, wholly in arena. */
void *saga_fields_copy(const struct saga_field *fields, size_t size, const void *in,
                       struct saga_arena *arena);
bool saga_fields_equal(const struct saga_field *fields, const void *a, const void *b);

/* ---- SQL columns (PostgreSQL's binary format) ---- */

/* Oids of a column's type and of an array of it: text 25/1009, bigint 20/1016, timestamptz
 * 1184/1185, json 114/199, boolean 16/1000. */
uint32_t saga_column_oid(const struct saga_field *column);
uint32_t saga_column_array_oid(const struct saga_field *column);

/* Appends one array element: int32 length in network order (-1: null) and the value. */
void saga_column_write(const struct saga_field *column, const void *row, struct saga_buf *out);

/* Reads one value as it comes in a binary result; len -1 is null. What the table of fields refuses
 * is SAGA_POISON: the database holds what this program cannot have written. */
int saga_column_read(const struct saga_field *column, const char *value, int len, void *row,
                     struct saga_arena *arena, struct saga_err *err);

#endif
