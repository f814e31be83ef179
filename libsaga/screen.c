/* From a record to an input of a batch. See screen.h. */
#include "screen.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Intake ---- */

static bool among(const struct saga_event *event, const struct saga_event *const *list)
{
    for (; list && *list; list++)
        if (*list == event)
            return true;
    return false;
}

/* "order.events" is written by "/order-svc". */
static char *source_of(const char *topic)
{
    int n = (int)strcspn(topic, ".");
    size_t size = (size_t)n + sizeof "/-svc";
    char *source = saga_alloc(size);

    snprintf(source, size, "/%.*s-svc", n, topic);
    return source;
}

void saga_intake_init(struct saga_intake *in, const struct saga_service *service,
                      const char *history)
{
    int known = 0;

    *in = (struct saga_intake){.service = service, .history = history};
    if (service->requests)
        in->topic[in->topics++] = service->requests;
    for (const char *const *topic = service->events; *topic; topic++) {
        assert(in->topics < SAGA_READS_MAX);
        in->source[in->topics] = source_of(*topic);
        in->topic[in->topics++] = *topic;
    }
    for (const struct saga_rule *rule = service->rules; rule->input; rule++) {
        if (rule->input == &saga_due || among(rule->input, service->accepts))
            continue;
        assert(known + 1 < SAGA_KNOWN_MAX);
        in->known[known++] = rule->input;
    }
}

void saga_intake_free(struct saga_intake *in)
{
    for (int i = 0; i < in->topics; i++)
        free((char *)in->source[i]);
    *in = (struct saga_intake){0};
}

static const char *copy(struct saga_arena *arena, const char *s, size_t n)
{
    return s ? saga_arena_text(arena, s, n) : NULL;
}

static struct saga_record *keep(struct saga_arena *arena, const struct saga_record *record)
{
    struct saga_record *kept = saga_arena_alloc(arena, sizeof *kept);
    struct saga_header *headers =
        saga_arena_alloc(arena, (size_t)record->headers_n * sizeof *headers);

    *kept = *record;
    kept->key = copy(arena, record->key, record->key_n);
    kept->value = copy(arena, record->value, record->value_n);
    for (int i = 0; i < record->headers_n; i++) {
        const struct saga_header *h = &record->headers[i];
        headers[i].name = copy(arena, h->name, strlen(h->name));
        headers[i].value = copy(arena, h->value, h->n);
        headers[i].n = h->n;
    }
    kept->headers = headers;
    return kept;
}

void saga_intake_read(const struct saga_intake *in, int topic, int32_t lanes,
                      struct saga_record *record,
                      void (*headers)(void *owner, struct saga_record *record), void *owner,
                      struct saga_arena *arena, struct saga_read *out)
{
    const struct saga_service *service = in->service;
    struct saga_err err = {0};
    bool away = false, request = in->source[topic] == NULL;

    *out = (struct saga_read){.topic = topic, .lane = record->partition, .offset = record->offset};
    if (request) {
        headers(owner, record);
        out->hash = saga_record_hash(record);
        out->bad = saga_request_read(record, service->accepts, service->creates, in->history, arena,
                                     &out->message, &out->reason, &err) < 0;
        if (out->message.forwarded.seq && out->message.forwarded_from >= lanes)
            saga_request_plain(record, arena, &out->message); /* no lane of ours has sent it */
        away = !out->bad &&
               saga_lane_of(out->message.key, strlen(out->message.key), lanes) != out->lane;
    } else {
        out->bad = saga_event_read(record, in->known, in->source[topic], out->lane, arena,
                                   &out->message, &out->reason, &err) < 0;
        if (out->bad)
            headers(owner, record);
    }
    if (out->bad || out->message.refused)
        out->detail = saga_arena_text(arena, err.text, strlen(err.text));
    if (out->bad || away)
        out->record = keep(arena, record);
}

/* ---- Screening ---- */

static void add(struct saga_batch *b, enum saga_kind kind, const struct saga_read *read)
{
    struct saga_in *in = saga_batch_add(b, kind, read->lane);

    in->record = read->record;
    in->reason = read->reason;
    in->detail = read->detail;
    if (kind == SAGA_IN_DEAD)
        return;
    in->key = read->message.key;
    if (kind == SAGA_IN_FORWARD)
        return;
    in->rule = saga_rule_of(b->service, read->message.event->type);
    in->data = read->message.data;
    in->id = read->message.place;
    in->trace = read->message.trace;
    in->raw = read->message.raw;
    in->slot = saga_batch_row(b, &b->orders, in->key);
    in->slot->lane = read->lane;
}

static enum saga_screened request(struct saga_batch *b, struct saga_reader *reader,
                                  const struct saga_read *read)
{
    struct saga_input *input = &reader->input[read->topic];

    if (read->offset < input->next_offset)
        return SAGA_DROPPED; /* their offset decides (4.2) */
    saga_input_pass(input, read->offset);
    input->hash = read->hash;
    if (read->bad) {
        add(b, SAGA_IN_DEAD, read);
        return SAGA_APPLIED;
    }
    if (read->message.forwarded.seq &&
        !saga_forward_screen(&reader->forwarded[read->message.forwarded_from],
                             read->message.forwarded))
        return SAGA_DROPPED;
    add(b, read->record ? SAGA_IN_FORWARD : SAGA_IN_REQUEST, read);
    return SAGA_APPLIED;
}

static enum saga_screened event(struct saga_batch *b, struct saga_reader *reader,
                                const struct saga_read *read, int64_t now)
{
    struct saga_input *input = &reader->input[read->topic];

    if (input->stopped || input->reached)
        return SAGA_IGNORED;
    if (read->bad) {
        if (!saga_input_pass(input, read->offset))
            return SAGA_PASSED; /* buried before */
        add(b, SAGA_IN_DEAD, read);
        return SAGA_APPLIED;
    }
    switch (saga_input_screen(input, read->offset, read->message.id, read->message.previous, now)) {
    case SAGA_NEXT:
        break;
    case SAGA_DUPLICATE:
        return SAGA_DROPPED;
    case SAGA_GAP:
        return SAGA_HELD;
    case SAGA_FORK:
        return SAGA_FORKED;
    case SAGA_UNREAD:
        return SAGA_IGNORED;
    }
    if (!read->message.event)
        return SAGA_PASSED;
    add(b, read->message.refused ? SAGA_IN_PARKED : SAGA_IN_EVENT, read);
    return SAGA_APPLIED;
}

enum saga_screened saga_screen(const struct saga_intake *in, struct saga_batch *b,
                               struct saga_reader *reader, const struct saga_read *read,
                               int64_t now)
{
    return in->source[read->topic] ? event(b, reader, read, now) : request(b, reader, read);
}
