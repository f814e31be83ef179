/* The invariants of RULES.md, from outside: topics, databases, the provider's ledger. What they are
 * is said there, under these numbers. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "event.h"
#include "world.h"

/* ---- 1, 2, 3, 6: rows. Each query names what it finds wrong, and finds nothing. ---- */

/* clang-format off */
static const struct { const char *invariant, *query; } queries[] = {
    {"1: stock balances",
     "select sku || ': ' || available || ' + ' || reserved || ' + ' || shipped || ' of ' || received"
     "  from stock where available + reserved + shipped <> received or available < 0"},
    {"1: reserved and shipped are the sums of the reservations",
     "with held as (select l->>'sku' as sku, r.state, sum((l->>'quantity')::bigint) as n"
     "                from reservation r, json_array_elements(r.lines) l group by 1, 2)"
     "select s.sku || ': reserved ' || reserved || ', shipped ' || shipped from stock s"
     "  left join held h on h.sku = s.sku and h.state = 'HELD'"
     "  left join held g on g.sku = s.sku and g.state = 'SHIPPED'"
     " where reserved <> coalesce(h.n, 0) or shipped <> coalesce(g.n, 0)"},
    {"1: movements add up to the stock",
     "with m as (select sku, coalesce(sum(quantity) filter (where kind = 'received'), 0) as received,"
     "                  coalesce(sum(quantity) filter (where kind = 'reserved'), 0) as reserved,"
     "                  coalesce(sum(quantity) filter (where kind = 'released'), 0) as released,"
     "                  coalesce(sum(quantity) filter (where kind = 'shipped'), 0) as shipped"
     "             from stock_movement group by sku)"
     "select s.sku from stock s left join m using (sku)"
     " where s.received <> coalesce(m.received, 0) or s.shipped <> coalesce(m.shipped, 0)"
     "    or s.reserved <> coalesce(m.reserved - m.released - m.shipped, 0)"},
    {"1: an order moves an SKU once each way",
     "select order_id || ': ' || sku || ' ' || kind || ' ' || count(*) from stock_movement"
     " where order_id is not null group by order_id, sku, kind having count(*) > 1"},
    {"1: what is held is what was ordered",
     "select order_id from reservation r join orders o using (order_id)"
     " where r.state in ('HELD', 'SHIPPED')"
     "   and (select string_agg((l->>'sku') || ' ' || (l->>'quantity'), ', ' order by l->>'sku')"
     "          from json_array_elements(r.lines) l)"
     "       is distinct from"
     "       (select string_agg((l->>'sku') || ' ' || (l->>'quantity'), ', ' order by l->>'sku')"
     "          from json_array_elements(o.lines) l)"},
    {"2: what was charged is what was ordered",
     "select key || ': ' || l.amount || ' of ' || o.amount"
     "  from ledger l join orders o on l.key = 'charge:' || o.order_id where l.amount <> o.amount"},
    {"2: money at the provider",
     "with l as (select substr(key, 8) as order_id,"
     "                  sum(case when key like 'charge:%' then amount else -amount end) as net"
     "             from ledger where reason is null group by 1)"
     "select order_id || ': ' || coalesce(p.state, 'no payment') || ', ' || coalesce(l.net, 0)"
     "  from l full join payment p using (order_id)"
     " where coalesce(l.net, 0) <> case p.state when 'COMPLETED' then p.amount else 0 end"},
    {"3: every order has come to an end, in all three services the same",
     "select order_id || ': ' || coalesce(o.state, '-') || ' ' || coalesce(r.state, '-') || ' ' ||"
     "       coalesce(p.state, '-')"
     "  from orders o full join reservation r using (order_id) full join payment p using (order_id)"
     " where not coalesce("
     "       case o.state"
     "       when 'CREATED' then r.state = 'HELD' and p.state = 'AWAITING'"
     "                       and o.payment_mode = 'later' and not o.requested and o.due > now() - interval '1s'"
     "       when 'PAID' then r.state = 'HELD' and p.state = 'COMPLETED'"
     "       when 'SHIPPED' then r.state = 'SHIPPED' and p.state = 'COMPLETED'"
     "       when 'COMPLETED' then r.state = 'SHIPPED' and p.state = 'COMPLETED'"
     "       when 'CANCELLED' then r.state in ('FAILED', 'RELEASED')"
     "                         and coalesce(p.state, 'VOIDED') in ('VOIDED', 'FAILED', 'REFUNDED') end, false)"},
    {"6: nothing impossible",
     "select 'order ' || key from order_svc.parked union all"
     " select 'inventory ' || key from inventory_svc.parked union all"
     " select 'payment ' || key from payment_svc.parked"},
    {NULL, NULL}};
/* clang-format on */

/* ---- 4, 5, 7: topics ---- */

struct seen { /* an event at its first occurrence */
    char order[65], type[40];
    int n;
};

static int by_order(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    int rc = strcmp(x->order, y->order);

    return rc ? rc : (x->n > y->n) - (x->n < y->n);
}

static const char *text_of(json_t *event, const char *name)
{
    return json_string_value(json_object_get(event, name));
}

/* 7. Records outside the chain (another writer's, unreadable) are not of it: skipped. An event that
 * is not new must have been there before, in this very place of the chain. */
static bool follows(const struct kafka_record *r, json_t *event, json_t *ids, const char *source,
                    struct saga_id *last)
{
    const char *id = text_of(event, "id"), *previous = text_of(event, "previousid");
    struct saga_id is, before = {0};
    int32_t lane;

    if (!id || !same(text_of(event, "source"), source) ||
        !saga_id_read(id, strlen(id), &lane, &is) || lane != r->partition)
        return false;
    if (is.seq <= last->seq) {
        MUST(json_object_get(ids, id), "7: %s/%d offset %" PRId64 ": %s stands after %" PRId64,
             r->topic, lane, r->offset, id, last->seq);
        return false;
    }
    MUST(!previous || saga_id_read(previous, strlen(previous), &lane, &before), "previousid %s",
         previous);
    MUST(saga_id_same(before, *last) && is.term >= last->term,
         "7: %s/%d offset %" PRId64 ": %s follows %s, but before it stands %" PRId64 ".%" PRId64,
         r->topic, lane, r->offset, id, previous ? previous : "nothing", last->seq, last->term);
    *last = is;
    json_object_set_new(ids, id, json_true());
    return true;
}

/* The first occurrences, by order. causes: the causationids are added to it, or NULL. */
static struct seen *first_ones(const struct kafka_log *log, const char *source, json_t *causes,
                               int *n)
{
    struct seen *list = calloc((size_t)log->n + 1, sizeof *list);
    json_t *ids = json_object();
    struct saga_id last = {0};

    MUST(list, "out of memory");
    *n = 0;
    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        json_t *event = r->value ? json_loadb(r->value, r->value_n, 0, NULL) : NULL;
        if (i > 0 && r->partition != log->at[i - 1].partition)
            last = (struct saga_id){0};
        if (follows(r, event, ids, source, &last)) {
            struct seen *s = &list[(*n)++];
            s->n = i;
            strncpy(s->order, text_of(event, "subject"), sizeof s->order - 1);
            strncpy(s->type, text_of(event, "type"), sizeof s->type - 1);
            if (causes)
                json_object_set_new(causes, text_of(event, "causationid"), json_true());
        }
        json_decref(event);
    }
    json_decref(ids);
    qsort(list, (size_t)*n, sizeof *list, by_order);
    return list;
}

static int count(const struct seen *s, int n, const char *type)
{
    int found = 0;

    for (int i = 0; i < n; i++)
        found += strcmp(s[i].type, type) == 0;
    return found;
}

/* 4. What may follow what among the events of one order, service by service; each at most once. */
static const struct {
    int service;
    const char *before, *after;
} sequence[] = {{ORDER, "", "OrderCreated"},
                {ORDER, "OrderCreated",
                 "OrderPaymentRequested OrderPaid OrderCancelRequested "
                 "OrderCancelled"},
                {ORDER, "OrderPaymentRequested", "OrderPaid OrderCancelRequested OrderCancelled"},
                {ORDER, "OrderPaid", "OrderCancelRequested OrderShipped"},
                {ORDER, "OrderCancelRequested", "OrderCancelled"},
                {ORDER, "OrderShipped", "OrderCompleted"},
                {INVENTORY, "", "InventoryReserved ReservationFailed InventoryReleased"},
                {INVENTORY, "InventoryReserved", "InventoryReleased"},
                {PAYMENT, "", "PaymentCompleted PaymentFailed PaymentVoided PaymentRefunded"},
                {PAYMENT, "PaymentCompleted", "PaymentRefunded"}};

static bool may_follow(int service, const char *before, const char *after)
{
    for (size_t i = 0; i < sizeof sequence / sizeof *sequence; i++)
        if (sequence[i].service == service && same(sequence[i].before, before))
            return strstr(text(" %s ", sequence[i].after), text(" %s ", after)) != NULL;
    return false;
}

static void check_sequence(int service, const struct seen *s, int n)
{
    const char *before = "";

    for (int i = 0; i < n; i++) {
        if (strcmp(s[i].type, "RequestRejected") == 0)
            continue;
        MUST(may_follow(service, before, s[i].type), "4: %s: %s after %s", s->order, s[i].type,
             *before ? before : "nothing");
        before = s[i].type;
    }
}

static void check_order(const struct seen *s, int n)
{
    int first = 0;

    while (first < n && strcmp(s[first].type, "RequestRejected") == 0)
        first++;
    if (first == n)
        return;
    MUST(strcmp(s[first].type, "OrderCreated") == 0, "4: %s begins with %s", s->order,
         s[first].type);
    MUST(count(s, n, "OrderCreated") == 1, "4: %s is created twice", s->order);
    MUST(count(s, n, "OrderPaid") <= 1, "4: %s is paid twice", s->order);
    MUST(count(s, n, "OrderCancelled") + count(s, n, "OrderCompleted") <= 1, "4: %s ends twice",
         s->order);
}

/* 5, for a cancelled order; any other has one reservation and no end of it. */
static void check_stock(struct world *w, const struct seen *s, int n)
{
    int ends = count(s, n, "ReservationFailed") + count(s, n, "InventoryReleased");
    const char *state = db_text(w->db, "select state from orders where order_id = '%s'", s->order);

    if (ends != same(state, "CANCELLED"))
        test_fail(__FILE__, __LINE__, "5: %s is %s with %d ends on inventory.events", s->order,
                  state, ends);
    MUST(count(s, n, "InventoryReserved") <= 1, "5: %s is reserved twice", s->order);
}

static void each_order(struct world *w, int service, json_t *causes, struct world_found *found)
{
    struct kafka_log *log = kafka_read(world_topic(w, text("%s.events", service_names[service])));
    int n;
    struct seen *list = first_ones(log, text("/%s-svc", service_names[service]), causes, &n);

    found->records += log->n;
    found->events += n;
    for (int i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && strcmp(list[i].order, list[next].order) == 0;)
            next++;
        check_sequence(service, &list[i], next - i);
        found->sequences++;
        if (service == ORDER)
            check_order(&list[i], next - i);
        if (service == INVENTORY)
            check_stock(w, &list[i], next - i);
    }
    free(list);
    kafka_log_free(log);
}

/* ---- 8: requests that may act have acted, or were answered ---- */

static const struct acted {
    const char *type, *when; /* SQL on the order's row */
} acted[] = {{"PlaceOrder", "true"},
             {"CancelOrder", "state = 'CANCELLED'"},
             {"PayOrder", "requested or state not in ('CREATED', 'CANCELLED')"},
             {"ShipOrder", "state in ('SHIPPED', 'COMPLETED')"},
             {"CompleteOrder", "state = 'COMPLETED'"}};

/* Those of the plain form with a key, which is most of them. */
static void check_request(struct world *w, const struct kafka_record *r, json_t *request,
                          json_t *causes)
{
    const char *type = text_of(request, "type"), *order = text_of(request, "order_id");
    const char *from = kafka_header(r, "forwarded-from");
    const char *place = from ? from : text("order.requests/%d/%" PRId64, r->partition, r->offset);

    if (!type || !order || json_object_get(causes, place) || !saga_name_ok(order, strlen(order)))
        return;
    for (size_t i = 0; i < sizeof acted / sizeof *acted; i++)
        if (strcmp(acted[i].type, type) == 0)
            MUST(db_int(w->db, "select count(*) from orders where order_id = '%s' and (%s)", order,
                        acted[i].when),
                 "8: %s of %s at %s has not acted, and was not answered", type, order, place);
}

/* The places of requests that are dead letters. */
static json_t *dead_letters(struct world *w)
{
    struct kafka_log *log = kafka_read(world_topic(w, "order.dlq"));
    json_t *places = json_object();

    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        json_object_set_new(places,
                            text("%s/%s/%s", kafka_header(r, "dlq-topic"),
                                 kafka_header(r, "dlq-partition"), kafka_header(r, "dlq-offset")),
                            json_true());
    }
    kafka_log_free(log);
    return places;
}

static void check_requests(struct world *w, json_t *causes, struct world_found *found)
{
    struct kafka_log *log = kafka_read(world_topic(w, "order.requests"));
    json_t *dead = dead_letters(w);

    json_object_update(causes, dead);
    found->requests = log->n;
    found->letters = (int64_t)json_object_size(dead);
    for (int i = 0; i < log->n; i++) {
        const struct kafka_record *r = &log->at[i];
        json_t *request = r->value ? json_loadb(r->value, r->value_n, 0, NULL) : NULL;
        if (request)
            check_request(w, r, request, causes);
        json_decref(request);
    }
    json_decref(dead);
    kafka_log_free(log);
}

struct world_found world_audit(struct world *w)
{
    json_t *causes = json_object();
    struct world_found found = {0};

    for (int i = 0; queries[i].invariant; i++) {
        const char *wrong = db_text(w->db, "%s", queries[i].query);
        MUST(!wrong, "invariant %s: %s", queries[i].invariant, wrong);
    }
    for (int s = 0; s < SERVICES; s++)
        each_order(w, s, s == ORDER ? causes : NULL, &found);
    check_requests(w, causes, &found);
    json_decref(causes);
    found.orders = db_int(w->db, "select count(*) from orders");
    found.skus = db_int(w->db, "select count(*) from stock");
    found.movements = db_int(w->db, "select count(*) from stock_movement");
    found.books = db_int(w->db, "select count(*) from ledger");
    return found;
}
