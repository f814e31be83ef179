/* Requests in every accepted form, with headers: the input is lines "name: value" up to an empty
 * one, and the record's value.
 *
 * What is good is within its limits, is the same when it is written in the plain form and read
 * again, and when it is forwarded to another partition; what is refused says why. */
#include <string.h>

#include "agree.h"
#include "events.h"
#include "field.h"
#include "fuzz.h"
#include "json_bytes.h"

#define HISTORY "5b0f3c52-0e0b-4e0c-9c6a-1f0d2e8a7741"

static int read_one(const struct saga_record *record, const struct saga_event *makes_key,
                    struct saga_message *m, struct saga_err *err)
{
    const char *reason = "";
    *err = (struct saga_err){0};
    int rc =
        saga_request_read(record, all_requests, makes_key, HISTORY, &fuzz_arena, m, &reason, err);
    if (rc == 0)
        MUST(err->code == 0, "good, but: %s", err->text);
    else
        MUST(rc == SAGA_POISON && (same(reason, "unreadable") || same(reason, "invalid") ||
                                   same(reason, "unknown_type") || same(reason, "too_large")),
             "rc %d, reason %s", rc, reason);
    return rc;
}

static void same_request(const struct saga_message *a, const struct saga_record *record,
                         const char *how)
{
    struct saga_message b;
    struct saga_err err;
    MUST(read_one(record, NULL, &b, &err) == 0, "%s: %s: %.*s", how, err.text, (int)record->value_n,
         record->value);
    MUST(a->event == b.event && same(a->key, b.key) &&
             saga_fields_equal(a->event->fields, a->data, b.data),
         "%s: another request: %.*s", how, (int)record->value_n, record->value);
}

static void written(const struct saga_message *m)
{
    struct saga_buf out = {0};
    saga_request_write(m->event, m->key, m->data, &out);
    const struct saga_record record = {
        .topic = "order.requests", .value = fuzz_copy(out.at, out.n), .value_n = out.n};
    same_request(m, &record, "written");
    saga_buf_free(&out);
}

/* A forward says its key: who reads it makes none. */
static void forwarded(const struct saga_message *m, const struct saga_record *record)
{
    struct saga_record forward = *record;
    saga_request_forward(record, m->key, &fuzz_arena, &forward.value, &forward.value_n);
    same_request(m, &forward, "forwarded");
}

static void good(const struct saga_message *m, const struct saga_record *record)
{
    const char *why;
    MUST(saga_name_ok(m->key, strlen(m->key)) && same(m->event->type, m->type), "%s", m->key);
    MUST(*m->place && json_utf8_ok(m->place, strlen(m->place)), "%s", m->place);
    MUST(!m->source || json_utf8_ok(m->source, strlen(m->source)), "%s", m->source);
    MUST(!m->trace || strlen(m->trace) == 55, "%s", m->trace);
    fuzz_within(m->event->fields, m->data);
    MUST(!m->event->check || m->event->check(m->data, &why), "%s", why);
    written(m);
    forwarded(m, record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct fuzz_form form;
    struct saga_message m;
    struct saga_err err;
    fuzz_form(data, n, &form);
    const struct saga_record record = {.topic = "order.requests",
                                       .partition = 3,
                                       .offset = 88,
                                       .time_ms = 1795513885123,
                                       .value = form.body,
                                       .value_n = form.n,
                                       .headers = form.header,
                                       .headers_n = form.headers};
    bool json = agree(form.body, form.n);
    if (read_one(&record, &place_order, &m, &err) < 0) {
        fuzz_refused(&err);
    } else {
        MUST(json, "it is not JSON");
        good(&m, &record);
    }
    fuzz_clean();
    return 0;
}
