/* What is said to a payment provider over HTTP and what its answers mean (schemas/provider.yaml has
 * the protocol). Pure: no I/O.
 *
 * Money has moved, or will not, only where the provider says so: status and body agree, and the body
 * names our payment. Whatever else comes is "unknown", never a failure. */
#ifndef PROVIDER_WIRE_H
#define PROVIDER_WIRE_H

#include "provider.h"

enum { WIRE_ANSWER_MAX = 16384, WIRE_TEXT_MAX = 256 /* code points of ref and reason */ };

/* The path below PAYMENT_PROVIDER_URL: to ask, or to look up what was asked. */
enum { WIRE_PATH_MAX = ID_MAX + 16 };
void wire_path(const struct saga_call *call, bool look_up, char path[WIRE_PATH_MAX]);
/* The body of a POST. -> free() */
char *wire_body(const struct saga_call *call);

/* An answer as its bytes come in. */
struct wire_bytes {
    char *at;
    size_t n;
    bool too_large;
};
/* -> false: that is more than WIRE_ANSWER_MAX, the answer is to be given up */
bool wire_take(struct wire_bytes *bytes, const char *more, size_t n);

struct wire_said {
    /* charge_succeeded, ...; NULL: looked up and not there, or refused and so to be asked for again */
    const struct saga_event *event;
    char ref[4 * WIRE_TEXT_MAX + 1], reason[4 * WIRE_TEXT_MAX + 1]; /* or "" */
    bool well; /* the provider is at work, though this call may have no answer */
};

/* What an answer means to the call that was asked, or looked up. */
void wire_read(struct wire_said *said, const struct saga_call *call, bool look_up, long status,
               const struct wire_bytes *bytes);
/* No answer: why says what happened. */
void wire_failed(struct wire_said *said, const struct saga_call *call, const char *why);

#endif
