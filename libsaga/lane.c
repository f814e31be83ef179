/* The rules of a lane: lane.h says what they promise. */
#include "lane.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

int32_t saga_lane_of(const char *key, size_t n, int32_t lanes)
{
    /* murmur2 of org.apache.kafka.common.utils.Utils: 32 bits, little-endian words */
    const uint32_t m = 0x5bd1e995, seed = 0x9747b28c;
    uint32_t h = seed ^ (uint32_t)n;
    size_t i = 0;

    for (; i + 4 <= n; i += 4) {
        uint32_t k;
        memcpy(&k, key + i, 4);
        k *= m;
        k ^= k >> 24;
        k *= m;
        h = (h * m) ^ k;
    }
    if (i < n) {
        uint32_t k = 0;
        for (size_t j = n; j-- > i;)
            k = k << 8 | (unsigned char)key[j];
        h = (h ^ k) * m;
    }
    h ^= h >> 13;
    h *= m;
    h ^= h >> 15;
    return (int32_t)((h & 0x7fffffff) % (uint32_t)lanes);
}

/* ---- Reading ---- */

static void looked_at(struct saga_input *in, int64_t offset)
{
    in->next_offset = offset + 1;
    if (offset > in->screened)
        in->screened = offset;
}

static void hold(struct saga_input *in, int64_t offset, struct saga_id previous, int64_t now)
{
    if (in->held >= 0 && in->held <= offset)
        return;
    if (!saga_input_open(in))
        in->held_since = now;
    in->held = offset;
    in->held_previous = previous;
}

enum saga_verdict saga_input_screen(struct saga_input *in, int64_t offset, struct saga_id id,
                                    struct saga_id previous, int64_t now)
{
    if (in->stopped || in->reached)
        return SAGA_UNREAD;
    if (saga_id_same(previous, in->last)) {
        in->last = id;
        in->lost = false;
        looked_at(in, offset);
        in->reached = in->held >= 0 && saga_id_same(in->held_previous, id);
        return SAGA_NEXT;
    }
    if (id.seq > in->last.seq) {
        looked_at(in, offset);
        hold(in, offset, previous, now);
        return SAGA_GAP;
    }
    if (id.term <= in->last.term && (id.seq != in->last.seq || saga_id_same(id, in->last))) {
        looked_at(in, offset);
        return SAGA_DUPLICATE;
    }
    in->stopped = true;
    return SAGA_FORK;
}

bool saga_input_pass(struct saga_input *in, int64_t offset)
{
    bool first = offset > in->screened;

    looked_at(in, offset);
    return first;
}

void saga_input_lose(struct saga_input *in, int64_t low, int64_t now)
{
    if (!saga_input_open(in))
        in->held_since = now;
    if (!in->lost)
        in->lost_at = saga_input_position(in);
    in->lost = true;
    in->next_offset = low;
    if (in->held < low)
        in->held = -1; /* gone as well */
}

int64_t saga_input_position(const struct saga_input *in)
{
    if (in->lost)
        return in->lost_at;
    return in->held >= 0 && in->held < in->next_offset ? in->held : in->next_offset;
}

int64_t saga_input_resume(struct saga_input *in)
{
    if (!in->reached)
        return -1;
    in->next_offset = in->held;
    in->held = -1;
    in->reached = in->rewound = false;
    return in->next_offset;
}

bool saga_input_overdue(struct saga_input *in, int64_t now, int64_t wait)
{
    if (!saga_input_open(in) || in->rewound || now - in->held_since < wait)
        return false;
    return in->rewound = true;
}

bool saga_forward_screen(struct saga_id *last, struct saga_id id)
{
    if (id.term < last->term || (id.term == last->term && id.seq <= last->seq))
        return false;
    *last = id;
    return true;
}

/* ---- Publishing ---- */

enum { FAILURES_MAX = 3 };

static struct saga_sent *sent_at(const struct saga_outgoing *out, uint32_t i)
{
    return &out->ring[(out->head + i) & (out->cap - 1)];
}

static void grow(struct saga_outgoing *out)
{
    uint32_t cap = out->cap ? out->cap * 2 : 64;
    struct saga_sent *ring = saga_alloc(cap * sizeof *ring);

    for (uint32_t i = 0; i < out->n; i++)
        ring[i] = *sent_at(out, i);
    free(out->ring);
    out->ring = ring;
    out->head = 0;
    out->cap = cap;
}

void saga_outgoing_sent(struct saga_outgoing *out, int64_t seq, struct saga_id own, uint32_t bytes)
{
    if (out->n == out->cap)
        grow(out);
    assert(out->n == 0 || sent_at(out, out->n - 1)->seq < seq);
    *sent_at(out, out->n++) = (struct saga_sent){seq, own, -1, bytes};
    out->bytes += bytes;
}

static struct saga_sent *find(const struct saga_outgoing *out, int64_t seq)
{
    uint32_t from = 0, to = out->n;

    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (sent_at(out, middle)->seq < seq)
            from = middle + 1;
        else
            to = middle;
    }
    return from < out->n && sent_at(out, from)->seq == seq ? sent_at(out, from) : NULL;
}

bool saga_outgoing_acked(struct saga_outgoing *out, int64_t seq, int64_t offset)
{
    struct saga_sent *sent = find(out, seq);

    if (seq <= out->published || (sent && sent->offset >= 0))
        return true; /* a second copy: sent again when the lane was taken again */
    if (!sent || offset < 0 || (sent->id.seq && offset <= out->known_offset))
        return false;
    out->failures = 0;
    if (sent->id.seq)
        out->known_offset = offset;
    sent->offset = offset;
    for (; out->n && (sent = sent_at(out, 0))->offset >= 0; out->n--) {
        out->published = sent->seq;
        out->bytes -= sent->bytes;
        if (sent->id.seq) {
            out->published_offset = sent->offset;
            out->published_id = sent->id;
        }
        out->head = (out->head + 1) & (out->cap - 1);
    }
    return true;
}

bool saga_outgoing_failed(struct saga_outgoing *out)
{
    if (++out->failures < FAILURES_MAX)
        return false;
    out->failures = 0; /* whoever starts it again gives it as many */
    return true;
}

bool saga_outgoing_waits_own(const struct saga_outgoing *out)
{
    return out->n && sent_at(out, 0)->id.seq;
}

void saga_outgoing_passed(struct saga_outgoing *out, int64_t seq)
{
    saga_outgoing_sent(out, seq, (struct saga_id){0}, 0);
    sent_at(out, out->n - 1)->offset = 0;
}

void saga_outgoing_reset(struct saga_outgoing *out)
{
    out->head = out->n = 0;
    out->bytes = 0;
}

bool saga_outgoing_full(const struct saga_outgoing *out)
{
    return out->n > SAGA_LANE_EVENTS || out->bytes > SAGA_LANE_BYTES;
}

bool saga_outgoing_eased(const struct saga_outgoing *out)
{
    return out->n < SAGA_LANE_EVENTS / 2 && out->bytes < SAGA_LANE_BYTES / 2;
}

/* ---- Looking ---- */

enum saga_finding saga_seen_judge(const struct saga_seen *seen, int64_t at,
                                  struct saga_id published_id, int64_t last_seq)
{
    /* above the end nothing is there; below low it has expired */
    if (at >= seen->low && !(seen->there && saga_id_same(seen->published, published_id)))
        return SAGA_KAFKA_BEHIND;
    return seen->newest.seq > last_seq ? SAGA_DATABASE_BEHIND : SAGA_FINE;
}
