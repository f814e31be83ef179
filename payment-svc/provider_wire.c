/* Requests to a payment provider over HTTP and its answers. See provider_wire.h. */
#include "provider_wire.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

/* ---- Requests ---- */

static const char *folder_of(const struct saga_call *call)
{
    return call->call == &charge ? "charges" : "refunds";
}

void wire_path(const struct saga_call *call, bool look_up, char path[WIRE_PATH_MAX])
{
    if (look_up)
        snprintf(path, WIRE_PATH_MAX, "/%s/%s", folder_of(call),
                 ((const struct charge *)call->data)->payment_id);
    else
        snprintf(path, WIRE_PATH_MAX, "/%s", folder_of(call));
}

char *wire_body(const struct saga_call *call)
{
    const struct charge *asked = call->data;
    json_t *body =
        json_pack("{s:s, s:s, s:I, s:s}", "payment_id", asked->payment_id, "order_id", call->key,
                  "amount", (json_int_t)asked->amount, "currency", asked->currency);

    if (call->call == &charge)
        json_object_set_new(body, "token", json_string(asked->token));
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

/* ---- Answers ---- */

bool wire_take(struct wire_bytes *bytes, const char *more, size_t n)
{
    bytes->too_large |= n > WIRE_ANSWER_MAX - bytes->n;
    if (bytes->too_large || n == 0)
        return !bytes->too_large;
    bytes->at = saga_realloc(bytes->at, bytes->n + n);
    memcpy(bytes->at + bytes->n, more, n);
    bytes->n += n;
    return true;
}

void wire_failed(struct wire_said *said, const struct saga_call *call, const char *why)
{
    *said = (struct wire_said){.event = call->call == &charge ? &charge_unknown : &refund_unknown};
    snprintf(said->reason, sizeof said->reason, "%s", why);
}

/* A text that an event may carry: 1 to WIRE_TEXT_MAX code points; jansson has seen to UTF-8 and NUL. */
static bool text_of(json_t *body, const char *name, char out[4 * WIRE_TEXT_MAX + 1])
{
    const char *text = json_string_value(json_object_get(body, name));
    int points = 0;

    for (const char *p = text; p && *p; p++)
        points += (*p & 0xc0) != 0x80;
    if (points < 1 || points > WIRE_TEXT_MAX)
        return false;
    strcpy(out, text);
    return true;
}

static bool has_text(json_t *body, const char *name, const char *expected)
{
    const char *text = json_string_value(json_object_get(body, name));

    return text && strcmp(text, expected) == 0;
}

/* It is about what we asked, not about a neighbour's payment or another sum. */
static bool is_ours(json_t *body, const struct charge *asked)
{
    json_t *amount = json_object_get(body, "amount"), *currency = json_object_get(body, "currency");

    return has_text(body, "payment_id", asked->payment_id) &&
           (!amount || (json_is_integer(amount) && json_integer_value(amount) == asked->amount)) &&
           (!currency || has_text(body, "currency", asked->currency));
}

/* Whether status and body say one thing for certain: then it is in said. */
static bool is_certain(struct wire_said *said, const struct saga_call *call, bool look_up,
                       long status, json_t *body)
{
    bool charging = call->call == &charge, done = status == 200 || status == 201;

    if (!is_ours(body, call->data))
        return false;
    if (done && has_text(body, "status", "succeeded") && text_of(body, "id", said->ref)) {
        said->event = charging ? &charge_succeeded : &refund_succeeded;
    } else if ((done || status == 402) &&
               has_text(body, "status", charging ? "declined" : "refused")) {
        said->event = charging ? &charge_declined : look_up ? NULL : &refund_refused;
        if (!text_of(body, "reason", said->reason))
            strcpy(said->reason, charging ? "declined" : "refused");
    } else if (look_up && status == 404 && has_text(body, "status", "not_found")) {
        said->event = NULL;
    } else {
        return false;
    }
    return true;
}

/* Statuses of a provider that does its work: it refuses this one request, or it is still at it. */
static bool is_well(long status, json_t *body)
{
    if (status == 200 || status == 202)
        return has_text(body, "status", "pending");
    return status >= 400 && status < 500 && status != 401 && status != 402 && status != 403 &&
           status != 408 && status != 429;
}

void wire_read(struct wire_said *said, const struct saga_call *call, bool look_up, long status,
               const struct wire_bytes *bytes)
{
    json_t *body = bytes->n ? json_loadb(bytes->at, bytes->n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    char why[80];

    *said = (struct wire_said){0};
    if (is_certain(said, call, look_up, status, body)) {
        said->well = true;
    } else {
        bool well = is_well(status, body);
        snprintf(why, sizeof why, "%s (HTTP %ld)",
                 well && (status < 300 || status == 409) ? "in flight"
                 : status < 300                          ? "not understood"
                                                         : "not done",
                 status);
        wire_failed(said, call, why);
        said->well = well;
    }
    json_decref(body);
}
