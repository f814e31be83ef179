/* A payment provider that speaks real HTTP (schemas/provider.yaml), in threads of the test's own
 * process, with the vices of real ones and a ledger of its own. What it does with a charge is
 * written in the token:
 *
 *     tok_[refund_][no_]WHAT[_N]
 *
 * refund_: what follows is done to the refund, and the charge is ok. no_: it is declined. WHAT is ok;
 * declined; slow: it is applied N ms after it came, and the key is in flight until then (409); held:
 * the same, until bank_let_go; refused: the first N times (a refund only); or what becomes of its
 * first N answers, applied as it is, look-ups counted: drop (the connection is closed), cut (in the
 * middle of the body), 500, html, json (ends too early), huge (64 KiB around a good answer),
 * redirect, other (about another payment). */
#ifndef BANK_H
#define BANK_H

#include <stdbool.h>
#include <stdint.h>

struct bank;

struct bank *bank_new(const char *token, int64_t keeps_keys_us); /* token: bearer */
/* The same by TLS, with a key and a certificate in PEM. */
struct bank *bank_new_tls(const char *token, int64_t keeps_keys_us, const char *key,
                          const char *certificate);
void bank_free(struct bank *b);
const char *bank_url(const struct bank *b);
/* From now on each request is answered with this status, and nothing is done; 0: as usual. */
void bank_down(struct bank *b, int status);
/* What is held is applied now. */
void bank_let_go(struct bank *b);
/* From now on keys are kept for so long. */
void bank_keep_keys(struct bank *b, int64_t us);

enum bank_kind { BANK_CHARGE, BANK_REFUND };
/* The ledger: each time that money moved, or was declined. */
struct bank_entry {
    enum bank_kind kind;
    char order[65], payment_id[65];
    long long amount;
    bool declined;
};
int bank_entries(struct bank *b, struct bank_entry **copy); /* -> n; free() */

struct bank_counts {
    long requests, conflicts; /* 409 */
    long looked_up, not_found;
    long forgotten;    /* keys that were used again after they had been forgotten */
    long other_keys;   /* a payment asked for under another key than before */
    long unauthorized; /* and */
    long redirected;   /* requests that followed a redirect */
    long in_flight;
    long most_in_flight, connections; /* since bank_begin_count */
};
void bank_begin_count(struct bank *b);
struct bank_counts bank_counts(struct bank *b);

#endif
