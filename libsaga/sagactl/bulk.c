/* Follows the events of many orders by their common name, and counts how they end. */
#include "bulk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "entry.h"
#include "kafka.h"

enum { TELL_MS = 1000, DIGITS = 18 /* of any number of ours, and none of them overflows */ };

void ctl_bulk_begin(struct ctl_bulk *b)
{
    static const char *const orders[] = {"order.events", NULL};
    static const char *const stock[] = {"order.events", "inventory.events", NULL};
    b->ended = saga_alloc((size_t)b->count + 1);
    memset(b->ended, 0, (size_t)b->count + 1);
    b->began_ms = ctl_now_ms();
    ctl_read(
        &(struct ctl_where){.topics = b->later ? stock : orders, .partition = -1, .from = CTL_END});
}

/* The number of one of ours, or 0. */
static int64_t index_of(const struct ctl_bulk *b, const struct saga_record *r)
{
    size_t n = strlen(b->base);
    if (r->key_n <= n + 1 || r->key_n > n + 1 + DIGITS || memcmp(r->key, b->base, n) != 0 ||
        r->key[n] != '-')
        return 0;
    int64_t v = 0;
    for (size_t i = n + 1; i < r->key_n; i++) {
        if (r->key[i] < '0' || r->key[i] > '9')
            return 0;
        v = v * 10 + (r->key[i] - '0');
    }
    return v <= b->count ? v : 0;
}

static int64_t *counter(struct ctl_bulk *b, const char *type)
{
    if (strcmp(type, "OrderPaid") == 0)
        return &b->paid;
    if (strcmp(type, "OrderCancelled") == 0)
        return &b->cancelled;
    if (b->later && strcmp(type, "InventoryReserved") == 0)
        return &b->reserved;
    return NULL;
}

static void take(struct ctl_bulk *b, const struct saga_record *r)
{
    int64_t i = r->key ? index_of(b, r) : 0;
    if (i == 0 || b->ended[i])
        return;
    struct ctl_entry e;
    ctl_entry_read(r, &e);
    int64_t *n = counter(b, e.type);
    if (n) {
        ++*n;
        b->ended[i] = true;
    }
    ctl_entry_free(&e);
}

static int64_t ends(const struct ctl_bulk *b)
{
    return b->paid + b->cancelled + b->reserved;
}

static void await(struct ctl_bulk *b, int64_t seconds)
{
    int64_t until = ctl_now_ms() + seconds * 1000, tell = ctl_now_ms() + TELL_MS;
    struct saga_record record;
    while (ends(b) < b->count && ctl_now_ms() < until) {
        if (ctl_next(100, &record) > 0)
            take(b, &record);
        if (!ctl_json && isatty(STDOUT_FILENO) && ctl_now_ms() >= tell) {
            printf("\r  %" PRId64 " of %" PRId64 " at their end", ends(b), b->count);
            fflush(stdout);
            tell += TELL_MS;
        }
    }
    if (!ctl_json && isatty(STDOUT_FILENO))
        printf("\r\033[K");
}

static void tell(const struct ctl_bulk *b, bool waited, double sent_s, double all_s)
{
    if (ctl_json) {
        json_t *o = json_pack("{s:s,s:I,s:f}", "first", b->base, "placed", (json_int_t)b->count,
                              "placed_s", sent_s);
        json_object_set_new(o, "first", json_sprintf("%s-1", b->base));
        if (waited)
            json_object_update_new(
                o, json_pack("{s:I,s:I,s:I,s:I,s:f}", "paid", (json_int_t)b->paid, "cancelled",
                             (json_int_t)b->cancelled, "reserved", (json_int_t)b->reserved, "open",
                             (json_int_t)(b->count - ends(b)), "seconds", all_s));
        ctl_print_json(o);
        json_decref(o);
        return;
    }
    printf("%" PRId64 " orders %s-1 to %s-%" PRId64 " are in Kafka, in %.3f s\n", b->count, b->base,
           b->base, b->count, sent_s);
    if (!waited)
        return;
    printf("%" PRId64 " of them are at their end, in %.2f s: %" PRId64 " paid, %" PRId64
           " cancelled",
           ends(b), all_s, b->paid, b->cancelled);
    if (b->later)
        printf(", %" PRId64 " reserved", b->reserved);
    printf("\n");
}

int ctl_bulk_end(struct ctl_bulk *b, int64_t wait_s)
{
    char place[128];
    int64_t began = b->began_ms ? b->began_ms : ctl_now_ms();
    ctl_flush(b->base, place);
    double sent = (double)(ctl_now_ms() - began) / 1000;
    if (wait_s)
        await(b, wait_s);
    tell(b, wait_s > 0, sent, (double)(ctl_now_ms() - began) / 1000);
    free(b->ended);
    if (!wait_s || ends(b) == b->count)
        return CTL_OK;
    fprintf(stderr, "sagactl: %" PRId64 " orders are not at their end after %" PRId64 " s\n",
            b->count - ends(b), wait_s);
    return CTL_NO;
}
