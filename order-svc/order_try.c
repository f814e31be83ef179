/* What the rules would say to a request, were it decided now: the very rules (order.c), on the order's
 * row as the database has it, in a batch that is thrown away. So HTTP refuses what they refuse, and
 * no list of its own says what that is. */
#include "order_http.h"

#include "batch.h"
#include "field.h"

static const struct saga_service rules = {.name = "order",
                                          .states = order_states,
                                          .rules = order_rules,
                                          .emits = order_emits,
                                          .orders = &order_table,
                                          .log = &refusal_table};

/* ---- The row ---- */

static int read_row(const struct saga_rows *rows, struct saga_arena *arena, struct sale *sale,
                    struct saga_err *err)
{
    const struct saga_field *columns = order_table.columns;
    int n;

    for (int c = 0; columns[c].name; c++) {
        const char *value = saga_rows_bytes(rows, 0, c, &n);
        if (saga_column_read(&columns[c], value, n, sale, arena, err) < 0) {
            saga_err_in(err, "column %s", columns[c].name);
            return SAGA_FATAL; /* the database holds what we cannot have written */
        }
    }
    sale->row.stored = true;
    return 1;
}

int order_load(struct saga_pg *pg, const char *order_id, struct saga_arena *arena,
               const struct sale **sale, struct saga_err *err)
{
    struct saga_params p = {0};
    struct saga_rows *rows = NULL;
    struct sale *found = saga_arena_zero(arena, sizeof *found);

    saga_param_array(&p, SAGA_OID_TEXT);
    saga_element_text(&p, order_id, -1);
    saga_param_array_end(&p);
    int rc = saga_pg_query(pg, order_table.load, &p, &rows, err);
    if (rc >= 0)
        rc = saga_rows_n(rows) ? read_row(rows, arena, found, err) : 0;
    *sale = rc > 0 ? found : NULL;
    saga_rows_free(rows);
    saga_params_free(&p);
    return rc;
}

/* ---- The rules ---- */

static const char *reason_of(const struct saga_batch *b, int i, struct saga_arena *arena)
{
    struct saga_message m;
    struct saga_err err = {0};
    const char *why;
    size_t n;
    const char *value = saga_out_value(&b->values, &b->out[i], &n);
    struct saga_record record = {.topic = b->topic, .value = value, .value_n = n};

    if (saga_event_read(&record, order_emits, b->source, 0, arena, &m, &why, &err) < 0 ||
        m.event != &request_rejected)
        return NULL;
    return ((const struct rejection *)m.data)->reason;
}

const char *order_refusal(const struct sale *sale, const char *order_id,
                          const struct saga_event *request, const void *data,
                          struct saga_arena *arena)
{
    struct saga_batch b;
    struct saga_err err = {0};
    const char *reason = NULL;

    struct sale row; /* decide() writes its lane */
    saga_batch_init(&b, &rules, 1, "");
    b.writer[0].term = 1;
    struct saga_slot *slot = saga_batch_row(&b, &b.orders, order_id);
    struct saga_in *in = saga_batch_add(&b, SAGA_IN_REQUEST, 0);
    if (sale) {
        row = *sale;
        slot->row = &row;
    }
    in->slot = slot;
    in->key = slot->key;
    in->rule = saga_rule_of(&rules, request->type);
    in->data = data;
    in->id = "order.requests/0/0";
    if (saga_batch_decide(&b, 1, &err) == 0)
        for (int i = 0; i < b.out_n && !reason; i++)
            reason = reason_of(&b, i, arena);
    saga_batch_free(&b);
    return reason;
}
