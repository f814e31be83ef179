/* The database of a service: its schema, brought up to date under an advisory lock, and whose it
 * is. */
#ifndef SAGA_SCHEMA_H
#define SAGA_SCHEMA_H

#include "pg.h"

/* Applies what is missing of libsaga's and the service's migrations, in order. They only add. */
int saga_schema_migrate(struct saga_pg *pg, const struct saga_service *service, const char *schema,
                        struct saga_err *err);

/* Remembers to which service, lanes, prefix and cluster the database belongs; a difference is
 * SAGA_FATAL. history: at least 40 bytes, the installation's UUID. */
int saga_schema_identity(struct saga_pg *pg, const struct saga_service *service, int32_t lanes,
                         const char *prefix, const char *cluster, char *history,
                         struct saga_err *err);

#endif
