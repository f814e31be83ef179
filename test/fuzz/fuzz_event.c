/* Events: the envelope and every payload. The input is a record's value, of lane 7 of whichever
 * service it says it is from.
 *
 * What is good is within its limits, and is the same when it is written and read again; what is
 * refused says why; and a reader that knows no type at all judges the envelope in the same way. */
#include <string.h>

#include "agree.h"
#include "events.h"
#include "field.h"
#include "fuzz.h"

enum { LANE = 7 };

static const char *const sources[] = {"/order-svc", "/inventory-svc", "/payment-svc"};

struct verdict {
    int rc;
    const char *reason;
    struct saga_message message;
    struct saga_err err;
};

static void read_one(const char *value, size_t n, const struct saga_event *const *known,
                     const char *source, struct verdict *v)
{
    const struct saga_record record = {
        .topic = "order.events", .partition = LANE, .value = value, .value_n = n};
    *v = (struct verdict){.reason = ""};
    v->rc = saga_event_read(&record, known, source, LANE, &fuzz_arena, &v->message, &v->reason,
                            &v->err);
    if (v->rc < 0)
        MUST(v->rc == SAGA_POISON && (same(v->reason, "unreadable") || same(v->reason, "foreign") ||
                                      same(v->reason, "too_large")),
             "rc %d, reason %s", v->rc, v->reason);
    if (v->rc < 0 || v->message.refused)
        fuzz_refused(&v->err);
    else
        MUST(v->rc == 0 && v->err.code == 0, "good, but: %s", v->err.text);
}

static bool same_id(struct saga_id a, struct saga_id b)
{
    return a.seq == b.seq && a.term == b.term;
}

static void same_envelope(const struct saga_message *a, const struct saga_message *b)
{
    MUST(same(a->type, b->type) && same(a->key, b->key) && same(a->place, b->place) &&
             same(a->cause, b->cause) && same(a->trace, b->trace) && same(a->source, b->source) &&
             a->lane == b->lane && same_id(a->id, b->id) && same_id(a->previous, b->previous) &&
             a->time_ms == b->time_ms,
         "another envelope: %s", b->place);
}

static void write(const struct saga_message *m, struct saga_buf *out)
{
    out->n = 0;
    saga_event_write(&(struct saga_emission){.source = m->source,
                                             .event = m->event,
                                             .key = m->key,
                                             .lane = m->lane,
                                             .id = m->id,
                                             .previous = m->previous,
                                             .time_ms = m->time_ms,
                                             .cause = m->cause,
                                             .trace = m->trace,
                                             .data = m->data},
                     out);
}

/* Written, it is read as the same; and written once more it is the same to the byte. */
static void comes_back(const struct saga_message *m)
{
    struct saga_buf once = {0}, twice = {0};
    struct verdict again;
    write(m, &once);
    read_one(fuzz_copy(once.at, once.n), once.n, all_events, m->source, &again);
    MUST(again.rc == 0 && !again.message.refused, "%s: %.*s", again.err.text, (int)once.n, once.at);
    same_envelope(m, &again.message);
    MUST(again.message.event == m->event &&
             saga_fields_equal(m->event->fields, m->data, again.message.data),
         "other data: %.*s", (int)once.n, once.at);
    write(&again.message, &twice);
    MUST(once.n == twice.n && memcmp(once.at, twice.at, once.n) == 0, "%.*s is not %.*s",
         (int)once.n, once.at, (int)twice.n, twice.at);
    saga_buf_free(&once);
    saga_buf_free(&twice);
}

/* What is parked with its order: the payload alone, written for good data, as it came for refused.
 * Read again, it gets the same verdict. */
static void parked(const struct saga_message *m)
{
    struct saga_buf out = {0};
    struct saga_err err = {0};
    void *data;
    if (m->refused && m->raw)
        saga_buf_str(&out, m->raw);
    else if (!m->refused)
        saga_payload_write(m->event, m->key, m->data, &out);
    if (out.n) {
        MUST(agree(out.at, out.n), "not JSON: %.*s", (int)out.n, out.at);
        int rc = saga_payload_read(m->event, m->key, fuzz_copy(out.at, out.n), out.n, &fuzz_arena,
                                   &data, &err);
        MUST(rc == (m->refused ? SAGA_POISON : 0), "%d: %.*s", rc, (int)out.n, out.at);
        if (rc < 0)
            fuzz_refused(&err);
        else
            MUST(saga_fields_equal(m->event->fields, m->data, data), "other data: %.*s", (int)out.n,
                 out.at);
    }
    saga_buf_free(&out);
}

static void good(const struct saga_message *m)
{
    const char *why;
    MUST(saga_name_ok(m->key, strlen(m->key)) && m->lane == LANE && m->id.seq > 0, "%s", m->key);
    MUST(!m->cause || strlen(m->cause) <= 512, "%s", m->cause);
    if (m->event)
        parked(m);
    if (!m->event || m->refused)
        return;
    MUST(same(m->event->type, m->type), "%s", m->type);
    fuzz_within(m->event->fields, m->data);
    MUST(!m->event->check || m->event->check(m->data, &why), "%s", why);
    comes_back(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct saga_event *const nothing[] = {NULL};
    struct verdict v, blind;
    const char *value = fuzz_copy(data, n), *source = NULL;
    bool json = agree(value, n);
    for (int i = 0; i < 3; i++) {
        read_one(value, n, all_events, source = sources[i], &v);
        if (!same(v.reason, "foreign"))
            break;
    }
    read_one(value, n, nothing, source, &blind);
    MUST(v.rc == blind.rc && same(v.reason, blind.reason),
         "%d %s: %s; who knows no type: %d %s: %s", v.rc, v.reason, v.err.text, blind.rc,
         blind.reason, blind.err.text);
    MUST(json || same(v.reason, "unreadable"), "it is not JSON");
    if (v.rc == 0) {
        same_envelope(&v.message, &blind.message);
        good(&v.message);
    }
    fuzz_clean();
    return 0;
}
