/* The seam to payment providers: what payment-svc asks of one, and what it may answer.
 *
 * A call has a key, "<call's type>:<order>": "charge:ord-1", "refund:ord-1". It may be made again
 * with the same key after any time, by another thread or process, and also while the first is under
 * way: the money must move once. A provider that keeps keys for ever sees to that by itself. One
 * that forgets them after keeps_keys_us has to look up what is asked again so late (look_up), by its
 * payment_id, and to ask only if it is not there; where it cannot, the outcome is unknown.
 *
 * call() runs on a caller's thread, outside any transaction of the engine, and gives
 * payment_answer() for each call, or for none that it cannot: the row's due comes then. What it
 * does not know for certain is "unknown", never a failure. */
#ifndef PROVIDER_H
#define PROVIDER_H

#include "saga.h"

enum { ID_MAX = 64 };

struct charge { /* what is asked; a refund is of the whole */
    int64_t amount;
    const char *currency, *token, *payment_id;
    int64_t tries; /* how often it was asked, with this one */
    bool look_up;  /* the key may be forgotten */
};
struct answer {
    const char *ref;    /* the provider's name of it, if it succeeded */
    const char *reason; /* if it did not */
};

/* calls */ extern const struct saga_event charge, refund;
/* answers */ extern const struct saga_event charge_succeeded, charge_declined, charge_unknown;
extern const struct saga_event refund_succeeded, refund_refused, refund_unknown;

struct payment_provider {
    const char *name;      /* PAYMENT_PROVIDER */
    int64_t keeps_keys_us; /* INT64_MAX: for ever */
    void (*call)(const struct saga_call *calls, int n);
    /* Whether its settings will do. *why: a line that names the variable. NULL: it has none */
    bool (*fits)(const char **why);
};

extern const struct payment_provider *payment_providers[]; /* that PAYMENT_PROVIDER can name */
extern const struct payment_provider provider_simulated;
extern struct payment_provider provider_http; /* keeps_keys_us is a setting */
extern const char
    *payment_database;             /* DATABASE_URL: where the simulated provider keeps its books, */
extern const char *payment_schema; /* and in which schema */

/* Of the provider http: PAYMENT_PROVIDER_... */
extern struct payment_http {
    const char *url, *token_file, *ca_file;
    int64_t connect_timeout, calls, break_after, break_for;
} payment_http;

extern const struct saga_setting payment_settings[];
bool payment_settings_fit(const char **why);

int64_t payment_keeps_keys(void);                        /* us, of the provider of the settings */
void payment_call(const struct saga_call *calls, int n); /* by the provider of the settings */
/* An answer is a result of its call: charge_... of a charge. Tells people of a refund that is
 * refused again and again, and of what cannot be looked up. */
void payment_answer(const struct saga_call *call, const struct saga_event *event,
                    const struct answer *answer);

#endif
