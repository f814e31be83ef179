/* order-svc, played by a test. See played.h. */
#include "played.h"

#include <string.h>

#include "lane.h"

const char *played_order(const struct world *w, int32_t lane, const char *name)
{
    for (int i = 0;; i++) {
        const char *order = text("%s-%d", name, i);
        if (saga_lane_of(order, strlen(order), w->lanes) == lane)
            return order;
    }
}

const char *played_event(int32_t lane, const char *id, const char *previous, const char *order)
{
    const char *before = previous ? text("\"previousid\":\"%d.%s\",", lane, previous) : "";

    return text("{\"specversion\":\"1.0\",\"id\":\"%d.%s\",\"source\":\"/order-svc\","
                "\"type\":\"OrderCreated\",\"subject\":\"%s\","
                "\"time\":\"2026-11-24T13:31:25.123Z\",%s\"causationid\":\"order.requests/0/1\","
                "\"data\":{\"order_id\":\"%s\",\"customer_id\":\"ann\",\"currency\":\"EUR\","
                "\"amount\":150,\"lines\":[{\"sku\":\"apple\",\"quantity\":1,"
                "\"unit_price\":150}],\"payment\":{\"mode\":\"now\",\"token\":\"tok_ok\"}}}",
                lane, id, order, before, order);
}

void played_created(const struct world *w, int32_t lane, int seq, int previous, const char *order)
{
    const char *before = previous ? text("%d." PLAYED_TERM, previous) : NULL;

    kafka_send(&(struct kafka_record){
        .topic = world_topic(w, "order.events"),
        .partition = lane,
        .key = order,
        .value = played_event(lane, text("%d." PLAYED_TERM, seq), before, order)});
}
