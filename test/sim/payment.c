/* payment-svc in the simulation: what its main.c says of it, its rows for the invariants, and the
 * provider "simulated" of RULES.md with its books in a list. */
#include "payment-svc/payment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "payment-svc/provider.h"
#include "sim.h"

static const struct saga_service service = {
    .name = "payment",
    .events = (const char *[]){"order.events", "inventory.events", NULL},
    .states = payment_states,
    .rules = payment_rules,
    .emits = payment_emits,
    .orders = &payment_table,
};

const struct sim_service sim_payment = {&service, NULL};

struct bill_view bill_view(const void *row)
{
    const struct bill *bill = row;

    return (struct bill_view){bill->row.state, bill->cancel, bill->amount};
}

/* ---- The provider ---- */

static struct booked *find(struct sim_world *w, const char *key, bool is_refund)
{
    for (int i = 0; i < w->ledger_n; i++)
        if (w->ledger[i].refund == is_refund && !strcmp(w->ledger[i].key, key))
            return &w->ledger[i];
    return NULL;
}

static struct booked *book(struct sim_world *w, struct booked entry)
{
    ROOM_FOR(w->ledger, w->ledger_n, w->ledger_cap);
    w->ledger[w->ledger_n] = entry;
    return &w->ledger[w->ledger_n++];
}

static const char *declined(const char *token)
{
    static const char *const tokens[][2] = {{"tok_ok", NULL},
                                            {"tok_unknown_once", NULL},
                                            {"tok_declined", "declined"},
                                            {"tok_unknown_declined", "declined"},
                                            {"tok_insufficient_funds", "insufficient_funds"},
                                            {"tok_expired", "expired"}};

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (!strcmp(tokens[i][0], token))
            return tokens[i][1];
    if (!strncmp(token, "tok_slow_", 9) || !strncmp(token, "tok_refund_refused_", 19))
        return NULL;
    return "unknown_token";
}

/* -> the answer's event; the same key never moves money twice. */
static const struct saga_event *charge_of(struct sim_world *w, const char *key,
                                          const struct charge *c, const char **reason)
{
    const struct booked *found = find(w, key, false);
    bool first = !found;

    if (first)
        found = book(w, (struct booked){key, false, c->amount, 0, declined(c->token)});
    if (found->amount != c->amount)
        sim_fail(w, "the charge of %s is asked for with another amount", key);
    *reason = found->reason;
    if (first && !strncmp(c->token, "tok_unknown_", 12)) {
        *reason = "timeout";
        return &charge_unknown;
    }
    return found->reason ? &charge_declined : &charge_succeeded;
}

static const struct saga_event *refund_of(struct sim_world *w, const char *key,
                                          const struct charge *c, const char **reason)
{
    const struct booked *charged = find(w, key, false);
    struct booked *found = find(w, key, true);

    if (!charged || charged->reason) {
        *reason = "not_charged";
        return &refund_refused;
    }
    if (!found) {
        int64_t n =
            strncmp(c->token, "tok_refund_refused_", 19) ? 0 : strtol(c->token + 19, NULL, 10);
        found = book(w, (struct booked){key, true, charged->amount, n, "refused"});
    }
    if (found->reason && found->refusals-- <= 0)
        found->reason = NULL;
    *reason = found->reason;
    return found->reason ? &refund_refused : &refund_succeeded;
}

static const char *const hows[] = {"answered", "done, told as unknown", "not done, unknown",
                                   "done, no answer", "lost"};

void sim_call(struct sim_world *w, int i, enum how how)
{
    struct pending p = w->pending[i];
    bool charging = p.call.call == &charge;
    const struct saga_event *event = charging ? &charge_unknown : &refund_unknown;
    const char *reason = "timeout";
    char ref[80];

    sim_move(w, "# %s %s: %s%s", p.call.call->type, p.call.key, hows[how],
             p.orphan ? " (its caller is gone)" : "");
    memmove(&w->pending[i], &w->pending[i + 1], (size_t)(--w->pending_n - i) * sizeof *w->pending);
    if (how != UNKNOWN_ONLY && how != NEVER)
        event = (charging ? charge_of : refund_of)(w, p.call.key, p.call.data, &reason);
    if (how == APPLIED_UNKNOWN) {
        event = charging ? &charge_unknown : &refund_unknown;
        reason = "timeout";
    }
    if (how == APPLIED_SILENT || how == NEVER || p.orphan)
        return;
    struct answer *answer = saga_arena_zero(&w->arena, sizeof *answer);
    answer->reason = reason;
    if (!reason) {
        int n = snprintf(ref, sizeof ref, "sim-%s:%s", p.call.call->type, p.call.key);
        answer->ref = saga_arena_text(&w->arena, ref, (size_t)n);
    }
    ROOM_FOR(w->reply, w->reply_n, w->reply_cap);
    w->reply[w->reply_n++] = (struct reply){p.call.key, p.lane, event, answer};
}

int64_t sim_money(const struct sim_world *w, const char *key)
{
    int64_t sum = 0;

    for (int i = 0; i < w->ledger_n; i++)
        if (!w->ledger[i].reason && !strcmp(w->ledger[i].key, key))
            sum += w->ledger[i].refund ? -w->ledger[i].amount : w->ledger[i].amount;
    return sum;
}
