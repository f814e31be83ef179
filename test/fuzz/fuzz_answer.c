/* Answers of a payment provider over HTTP: the input is a line with the status, and the body. Money has
 * moved, or will not, only under a status that says so, and what an event is to carry is within its
 * limits. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "payment-svc/provider_wire.h"

static const struct charge asked = {700, "EUR", "tok_ok", "pay-1", 1};

static void certain(const struct wire_said *said, const struct saga_call *call, bool look_up,
                    long status)
{
    bool done = status == 200 || status == 201, charging = call->call == &charge;

    MUST(said->well, "certain, and not well");
    if (!said->event)
        MUST(look_up && (status == 404 || ((done || status == 402) && !charging)),
             "to be asked for after %ld", status);
    else if (said->event == (charging ? &charge_succeeded : &refund_succeeded))
        MUST(done && *said->ref, "succeeded by %ld", status);
    else
        MUST((done || status == 402) && *said->reason &&
                 said->event == (charging ? &charge_declined : &refund_refused),
             "%s by %ld", said->event->type, status);
}

static void one(const struct saga_event *what, bool look_up, long status,
                const struct wire_bytes *bytes)
{
    struct saga_call call = {"ord-1", what, &asked};
    struct wire_said said;

    wire_read(&said, &call, look_up, status, bytes);
    if (said.event)
        fuzz_within(said.event->fields, &(struct answer){*said.ref ? said.ref : NULL,
                                                         *said.reason ? said.reason : NULL});
    if (said.event != &charge_unknown && said.event != &refund_unknown)
        certain(&said, &call, look_up, status);
    else
        MUST(*said.reason && !*said.ref, "unknown without a reason");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *line = n ? memchr(data, '\n', n) : NULL;
    size_t head = line ? (size_t)(line - data) + 1 : 0;
    struct wire_bytes bytes = {0};
    char status[4] = "200";

    memcpy(status, data, head > 4 ? 3 : head ? head - 1 : 0);
    MUST(wire_take(&bytes, fuzz_copy(data + head, n - head), n - head) ==
             (n - head <= WIRE_ANSWER_MAX),
         "%zu bytes", n - head);
    for (int i = 0; i < 4; i++)
        one(i & 1 ? &refund : &charge, i & 2, strtol(status, NULL, 10), &bytes);
    free(bytes.at);
    fuzz_clean();
    return 0;
}
