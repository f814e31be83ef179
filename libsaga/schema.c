/* Migrations and identity. See schema.h. */
#include "schema.h"

#include <inttypes.h>
#include <stdio.h>

#include "failpoint.h"
#include "log.h"
#include "sql.h"

static const char sql_lock[] = "select pg_advisory_xact_lock(hashtext('saga ' || $1))";

static const char sql_versions[] =
    "select coalesce(max(version) filter (where part = 'libsaga'), 0),"
    "       coalesce(max(version) filter (where part = 'service'), 0) from migration";

static const char sql_done[] =
    "insert into migration (part, version, at) values ($1, $2::bigint, now())";

static int apply(struct saga_pg *pg, const char *part, const char *const *files, int64_t have,
                 struct saga_err *err)
{
    struct saga_params p = {0};
    int64_t version = 0;
    int rc = 0;

    for (; files && files[version] && rc >= 0; version++) {
        if (version < have)
            continue;
        saga_params_reset(&p);
        saga_param_text(&p, part);
        saga_param_int(&p, version + 1);
        if ((rc = saga_pg_script(pg, files[version], err)) < 0 ||
            (rc = saga_pg_query(pg, sql_done, &p, NULL, err)) < 0) {
            saga_err_in(err, "migration %s/%03" PRId64 ".sql", part, version + 1);
            break;
        }
        saga_log_at(SAGA_INFO, "migration applied", "\"part\":\"%s\",\"version\":%" PRId64, part,
                    version + 1);
    }
    saga_params_free(&p);
    if (rc >= 0 && have > version)
        return saga_err(err, SAGA_FATAL,
                        "the database has version %" PRId64 " of %s, this program knows %" PRId64
                        ": it is too old",
                        have, part, version);
    return rc < 0 ? rc : 0;
}

static int migrate(struct saga_pg *pg, const struct saga_service *service, const char *schema,
                   struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    char script[400];
    int rc;

    saga_param_text(&p, schema);
    rc = saga_pg_query(pg, sql_lock, &p, NULL, err);
    saga_params_free(&p);
    snprintf(script, sizeof script,
             "create schema if not exists %s;"
             "create table if not exists migration ("
             "    part text, version bigint, at timestamptz not null, primary key (part, version))",
             schema);
    if (rc < 0 || (rc = saga_pg_script(pg, script, err)) < 0 ||
        (rc = saga_pg_query(pg, sql_versions, NULL, &rows, err)) < 0)
        return rc;
    int64_t library = saga_rows_int(rows, 0, 0), own = saga_rows_int(rows, 0, 1);
    saga_rows_free(rows);
    if ((rc = apply(pg, "libsaga", migrations, library, err)) < 0)
        return rc;
    return apply(pg, "service", service->migrations, own, err);
}

int saga_schema_migrate(struct saga_pg *pg, const struct saga_service *service, const char *schema,
                        struct saga_err *err)
{
    struct saga_err ignored = {0};
    int rc;

    /* Who waits for a lock of a table keeps all others from it who come later. */
    if ((rc = saga_pg_connect(pg, err)) < 0 ||
        (rc = saga_pg_script(pg, "begin; set local lock_timeout = '2s'", err)) < 0)
        return rc;
    if ((rc = migrate(pg, service, schema, err)) >= 0) {
        SAGA_FAILPOINT(migrating);
        rc = saga_pg_script(pg, "commit", err);
        SAGA_FAILPOINT(migrated);
        return rc;
    }
    if (saga_pg_connected(pg))
        saga_pg_script(pg, "rollback", &ignored);
    return rc;
}

/* Two who begin at the same time: the second one finds what the first has written. */
static const char begin_identify[] =
    "begin; set local lock_timeout = '2s'; lock table identity in share row exclusive mode";

static const char sql_identify[] =
    "insert into identity (service, lanes, topic_prefix, kafka_cluster_id)"
    "     select $1, $2::bigint, $3, $4 where not exists (select from identity)";

static const char sql_identity[] =
    "select service, lanes, topic_prefix, kafka_cluster_id, history::text from identity";

static int identify(struct saga_pg *pg, const struct saga_params *p, struct saga_err *err)
{
    struct saga_err ignored = {0};
    int rc;

    if ((rc = saga_pg_connect(pg, err)) < 0 || (rc = saga_pg_script(pg, begin_identify, err)) < 0)
        return rc;
    if ((rc = saga_pg_query(pg, sql_identify, p, NULL, err)) < 0 && saga_pg_connected(pg))
        saga_pg_script(pg, "rollback", &ignored);
    else if (rc >= 0)
        rc = saga_pg_script(pg, "commit", err);
    SAGA_FAILPOINT(identified);
    return rc;
}

int saga_schema_identity(struct saga_pg *pg, const struct saga_service *service, int32_t lanes,
                         const char *prefix, const char *cluster, char *history,
                         struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    int rc = saga_pg_query(pg, sql_identity, NULL, &rows, err);

    if (rc >= 0 && saga_rows_n(rows) == 0) {
        saga_rows_free(rows);
        rows = NULL;
        saga_param_text(&p, service->name);
        saga_param_int(&p, lanes);
        saga_param_text(&p, prefix);
        saga_param_text(&p, cluster);
        if ((rc = identify(pg, &p, err)) >= 0)
            rc = saga_pg_query(pg, sql_identity, NULL, &rows, err);
        saga_params_free(&p);
    }
    if (rc < 0)
        return rc;
    const char *was_service = saga_rows_text(rows, 0, 0), *was_prefix = saga_rows_text(rows, 0, 2),
               *was_cluster = saga_rows_text(rows, 0, 3);
    int64_t was_lanes = saga_rows_int(rows, 0, 1);
    if (strcmp(was_service, service->name) || was_lanes != lanes || strcmp(was_prefix, prefix) ||
        strcmp(was_cluster, cluster))
        rc = saga_err(
            err, SAGA_FATAL,
            "this database belongs to %s-svc with %" PRId64 " lanes, topic prefix \"%s\", "
            "cluster %s; here are %s-svc, %d, \"%s\", %s",
            was_service, was_lanes, was_prefix, was_cluster, service->name, lanes, prefix, cluster);
    snprintf(history, 40, "%s", saga_rows_text(rows, 0, 4));
    saga_rows_free(rows);
    return rc < 0 ? rc : 0;
}
