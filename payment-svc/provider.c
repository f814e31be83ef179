/* Calls to the payment provider and its answers: their fields, and the choice of the provider. */
#include "provider.h"

#include <inttypes.h>
#include <string.h>

#include "events.h"
#include "log.h"
#include "payment.h"

#define MS     INT64_C(1000)
#define SECOND INT64_C(1000000)

enum { REFUSALS_TOLD = 10 }; /* from this one on people are told (RULES.md) */

const struct payment_provider *payment_providers[] = {&provider_simulated, &provider_http, NULL};
static const char *const names[] = {"simulated", "http", NULL};
static const char *chosen = "simulated";

const struct saga_setting payment_settings[] = {
    {"PAYMENT_PROVIDER", "simulated",
     "who moves the money: simulated (tok_ok, tok_declined, ...), http", .text = &chosen,
     .names = names},
    {"PAYMENT_PROVIDER_URL", "", "http: where, https://host/path, or http:// on this machine",
     .text = &payment_http.url},
    {"PAYMENT_PROVIDER_TOKEN_FILE", "", "http: file of the bearer token, or none is sent",
     .text = &payment_http.token_file},
    {"PAYMENT_PROVIDER_CA_FILE", "", "http: certificates to trust, PEM; default: the system's",
     .text = &payment_http.ca_file},
    {"PAYMENT_PROVIDER_CONNECT", "2s", "http: a connection must be there after it",
     &payment_http.connect_timeout, 10 * MS, 600 * SECOND},
    {"PAYMENT_PROVIDER_KEEPS_KEYS", "24h",
     "http: how long it knows a key; what is asked again after half of it is looked up",
     &provider_http.keeps_keys_us, SECOND, 0},
    {"PAYMENT_PROVIDER_CALLS", "400", "http: most calls in flight", &payment_http.calls, 1, 10000},
    {"PAYMENT_PROVIDER_BREAK", "20", "http: so many failures in a row open the circuit breaker,",
     &payment_http.break_after, 1, 1000000},
    {"PAYMENT_PROVIDER_BREAK_FOR", "5s", "http: and then one call is tried each",
     &payment_http.break_for, 10 * MS, 3600 * SECOND},
    /* Read by the engine, too, which lists them. */
    {"SAGA_CALL_TIMEOUT", "5s", NULL, &payment_call_timeout},
    {"DATABASE_URL", "", NULL, .text = &payment_database},
    {0}};

#define F(member) SAGA_AT(struct T, member)

#define T charge
static const struct saga_field asked[] = {{F(amount), SAGA_INT, 0, MAX_AMOUNT},
                                          {F(currency), SAGA_CODE, 3, 3},
                                          {F(token), SAGA_ID},
                                          {F(payment_id), SAGA_ID},
                                          {F(tries), SAGA_INT, 1, INT64_MAX},
                                          {F(look_up), SAGA_BOOL},
                                          {0}};
#undef T

#define T answer
static const struct saga_field answered[] = {{F(ref), SAGA_TEXT, 1, 256, .optional = true},
                                             {F(reason), SAGA_TEXT, 1, 256, .optional = true},
                                             {0}};
#undef T

/* A call's type is the beginning of its key at the provider. */
const struct saga_event charge = {"charge", sizeof(struct charge), asked};
const struct saga_event refund = {"refund", sizeof(struct charge), asked};

#define ANSWER(name) const struct saga_event name = {#name, sizeof(struct answer), answered}
ANSWER(charge_succeeded);
ANSWER(charge_declined);
ANSWER(charge_unknown);
ANSWER(refund_succeeded);
ANSWER(refund_refused);
ANSWER(refund_unknown);

static const struct payment_provider *provider(void)
{
    int i = 0;

    while (strcmp(payment_providers[i]->name, chosen) != 0)
        i++;
    return payment_providers[i];
}

bool payment_settings_fit(const char **why)
{
    return !provider()->fits || provider()->fits(why);
}

int64_t payment_keeps_keys(void)
{
    return provider()->keeps_keys_us;
}

void payment_call(const struct saga_call *calls, int n)
{
    provider()->call(calls, n);
}

/* Here and not in the rule, which may run more than once for one answer. */
void payment_answer(const struct saga_call *call, const struct saga_event *event,
                    const struct answer *answer)
{
    const struct charge *asked_for = call->data;

    if ((event == &refund_refused || event == &refund_unknown) && asked_for->tries >= REFUSALS_TOLD)
        saga_log_at(SAGA_ERROR, "a refund is not given, and asked for again",
                    "\"order\":\"%s\",\"tries\":%" PRId64, call->key, asked_for->tries);
    if ((event == &charge_unknown || event == &refund_unknown) && asked_for->look_up)
        saga_log_at(SAGA_ERROR, "not looked up, and not asked again: its key may be forgotten",
                    "\"order\":\"%s\",\"payment_id\":\"%s\",\"tries\":%" PRId64, call->key,
                    asked_for->payment_id, asked_for->tries);
    saga_answer(call, event, answer);
}
