/* Inputs, rows and results of a batch, for the tests of the rules. See deciding.h. */
#include "deciding.h"

#include <check.h>
#include <string.h>

void deciding_start(struct saga_batch *b, const struct saga_service *service)
{
    saga_batch_init(b, service, DECIDING_LANES, "history");
    b->writer[DECIDING_LANE].term = 1;
}

void *deciding_row(struct saga_batch *b, struct saga_slots *rows, const char *key)
{
    struct saga_slot *slot = saga_batch_row(b, rows, key);
    struct saga_row *row = slot->row;

    if (!row) {
        row = saga_arena_zero(&b->arena, rows->table->size);
        row->key = slot->key;
        slot->row = row;
    }
    return row;
}

void deciding_add(struct saga_batch *b, enum saga_kind kind, const char *key,
                  const struct saga_event *input, const void *data, const char *id)
{
    struct saga_slot *slot = saga_batch_row(b, &b->orders, key);
    struct saga_in *in = saga_batch_add(b, kind, DECIDING_LANE);

    slot->lane = DECIDING_LANE;
    in->key = slot->key;
    in->slot = slot;
    in->rule = saga_rule_of(b->service, input->type);
    in->data = data;
    in->id = id;
    ck_assert_msg(in->rule != NULL, "no rule for %s", input->type);
}

int deciding_run(struct saga_batch *b)
{
    struct saga_err err = {0};

    saga_batch_name(b);
    return saga_batch_decide(b, DECIDING_NOW, &err);
}

void deciding_done(struct saga_batch *b)
{
    saga_batch_commit(b);
}

json_t *deciding_event(const struct saga_batch *b, int i)
{
    ck_assert_msg(i < b->out_n, "event %d of %d", i, b->out_n);
    json_t *event = json_loadb(b->values.at + b->out[i].at, b->out[i].n, 0, NULL);
    ck_assert_ptr_nonnull(event);
    return event;
}

bool deciding_is(const struct saga_batch *b, int i, const char *type)
{
    json_t *event = deciding_event(b, i);
    bool same = strcmp(json_string_value(json_object_get(event, "type")), type) == 0;

    json_decref(event);
    return same;
}

void deciding_expect(const struct saga_batch *b, int i, const char *type, const char *cause,
                     json_t *expected)
{
    json_t *event = deciding_event(b, i), *data = json_object_get(event, "data");

    ck_assert_str_eq(json_string_value(json_object_get(event, "type")), type);
    ck_assert_str_eq(json_string_value(json_object_get(event, "causationid")), cause);
    char *is = json_dumps(data, JSON_SORT_KEYS), *want = json_dumps(expected, JSON_SORT_KEYS);
    ck_assert_str_eq(is, want);
    free(is), free(want);
    json_decref(event);
    json_decref(expected);
}
