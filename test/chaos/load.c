/* The orders of a run of chaos, and what becomes of them. See chaos.h.
 *
 * Most are the mix of world_load. Of the others some are shipped and completed, some stand in a
 * partition that is not theirs (no key), and some records are not requests at all. */
#include <inttypes.h>
#include <string.h>

#include "chaos.h"
#include "web.h"

enum { SHIP_EVERY = 20, LOOSE_EVERY = 25, RUBBISH_EVERY = 200, PAGE = 500 };

static int count_of(const struct chaos *c, int every)
{
    return (c->sent + every - 1) / every;
}

void load_send(struct chaos *c, int until)
{
    struct world *w = c->w;

    if (until > c->orders)
        until = c->orders;
    if (!c->kafka || until <= c->sent)
        return;
    world_load(w, "mix", c->sent, until);
    for (; c->sent < until; c->sent++) {
        int i = c->sent;
        const char *requests = world_topic(w, "order.requests");
        if (i % SHIP_EVERY == 0)
            world_place(w, text("ship-%d", i / SHIP_EVERY), "load-1 2 30", "tok_ok");
        if (i % LOOSE_EVERY == 0)
            kafka_send(
                &(struct kafka_record){.topic = requests,
                                       .partition = RANDOM,
                                       .value = world_place_json(text("loose-%d", i / LOOSE_EVERY),
                                                                 "load-2 1 77", "tok_ok")});
        if (i % RUBBISH_EVERY == 0)
            kafka_send(&(struct kafka_record){
                .topic = requests, .partition = RANDOM, .value = "{\"type\":\"PlaceOrder\""});
    }
    kafka_flush(20);
}

int load_ship(struct chaos *c)
{
    const char *paid;
    char order[65];
    int n;

    if (!c->kafka || !c->postgres)
        return count_of(c, SHIP_EVERY);
    paid = db_text(c->w->db, "select string_agg(order_id, ' ') from orders"
                             " where order_id ~ '^ship-' and state = 'PAID'");
    for (; paid && sscanf(paid, "%64s%n", order, &n) == 1; paid += n) {
        world_ask(c->w, order, "{\"type\":\"ShipOrder\",\"order_id\":\"%s\"}", order);
        world_ask(c->w, order, "{\"type\":\"CompleteOrder\",\"order_id\":\"%s\"}", order);
    }
    kafka_flush(20);
    return count_of(c, SHIP_EVERY) -
           (int)db_int(c->w->db, "select count(*) from orders where order_id ~ '^ship-' and "
                                 "state = 'COMPLETED'");
}

int64_t load_sent(const struct chaos *c)
{
    return c->sent + count_of(c, SHIP_EVERY) + count_of(c, LOOSE_EVERY);
}

int64_t load_ended(struct chaos *c)
{
    return db_int(c->w->db, "select count(*) from orders where state in"
                            " ('PAID', 'CANCELLED', 'SHIPPED', 'COMPLETED')");
}

const char *load_open(struct chaos *c)
{
    return db_text(c->w->db,
                   "with o as (select order_id, o.state, r.state as r, p.state as p"
                   "             from orders o left join reservation r using (order_id)"
                   "             left join payment p using (order_id)"
                   "            where o.state not in ('PAID', 'CANCELLED', 'SHIPPED', 'COMPLETED')"
                   "               or (order_id ~ '^ship-' and o.state <> 'COMPLETED') limit 5)"
                   "select coalesce(string_agg(concat_ws(' ', order_id, state, r, p), ', '),"
                   "                'never created')"
                   "  from o");
}

static void check_others(struct chaos *c, const char *name, int every, const char *end)
{
    const char *wrong =
        db_text(c->w->db,
                "select n.order_id || ': ' || coalesce(o.state, '-') || ' ' ||"
                "       coalesce(r.state, '-') || ' ' || coalesce(p.state, '-')"
                "  from (select '%s-' || i as order_id from generate_series(0, %d - 1) i) n"
                "  left join orders o using (order_id)"
                "  left join reservation r using (order_id)"
                "  left join payment p using (order_id)"
                " where coalesce(o.state, '-') || ' ' || coalesce(r.state, '-') || ' ' ||"
                "       coalesce(p.state, '-') <> '%s'",
                name, count_of(c, every), end);

    MUST(!wrong, "%s, expected %s", wrong, end);
}

struct world_found load_check(struct chaos *c)
{
    world_loaded(c->w, "mix", c->sent);
    check_others(c, "ship", SHIP_EVERY, "COMPLETED SHIPPED COMPLETED");
    check_others(c, "loose", LOOSE_EVERY, "PAID HELD COMPLETED");
    MUST_BE(db_int(c->w->db, "select count(*) from orders"), load_sent(c));
    struct world_found found = world_audit(c->w);
    MUST_BE(found.letters, count_of(c, RUBBISH_EVERY));
    return found;
}

/* ---- HTTP ---- */

static const char *text_of(json_t *row, const char *name)
{
    return json_string_value(json_object_get(row, name));
}

static int64_t number_of(json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

/* All pages of a list, and what each of its rows adds to a sum. -> rows */
static int64_t walk(struct world *w, int service, const char *path, const char *list,
                    void (*look)(json_t *row, void *sums), void *sums)
{
    const char *after = NULL;
    json_t *answer, *row;
    int64_t n = 0;
    size_t i;

    do {
        const char *url = world_url(world_member(w, service, 0), path);
        long status = web_get(&answer, "%s?limit=%d%s%s", url, PAGE, after ? "&after=" : "",
                              after ? after : "");
        MUST(status == 200, "GET %s: %ld", path, status);
        json_array_foreach(json_object_get(answer, list), i, row)
        {
            look(row, sums);
            n++;
        }
        after = text_of(answer, "next") ? text("%s", text_of(answer, "next")) : NULL;
        json_decref(answer);
    } while (after);
    return n;
}

static const char *const states[] = {"CREATED", "CANCELLING", "CANCELLED",
                                     "PAID",    "SHIPPED",    "COMPLETED"};
enum { STATES = sizeof states / sizeof *states };

static void add_order(json_t *row, void *sums)
{
    int64_t *n = sums;

    for (int s = 0; s < STATES; s++)
        n[s] += same(text_of(row, "status"), states[s]);
    n[STATES] += number_of(row, "amount");
}

static void add_stock(json_t *row, void *sums)
{
    static const char *const names[] = {"available", "reserved", "shipped"};
    int64_t *n = sums;

    for (int i = 0; i < 3; i++)
        n[i] += number_of(row, names[i]);
}

int64_t load_compare(struct chaos *c)
{
    int64_t orders[STATES + 1] = {0}, stock[3] = {0}, n;
    struct world *w = c->w;

    n = walk(w, ORDER, "/api/v1/orders", "orders", add_order, orders);
    MUST_BE(n, db_int(w->db, "select count(*) from orders"));
    for (int s = 0; s < STATES; s++)
        MUST_BE(orders[s],
                db_int(w->db, "select count(*) from orders where state = '%s'", states[s]));
    MUST_BE(orders[STATES], db_int(w->db, "select sum(amount) from orders"));
    n += walk(w, INVENTORY, "/api/v1/inventory", "inventory", add_stock, stock);
    MUST_BE(stock[0], db_int(w->db, "select sum(available) from stock"));
    MUST_BE(stock[1], db_int(w->db, "select sum(reserved) from stock"));
    MUST_BE(stock[2], db_int(w->db, "select sum(shipped) from stock"));
    return n;
}
