/* The payloads' tables (schemas/events.c) against schemas/events/<type>.json, member by member;
 * what the tables accept and refuse at every limit; and what the checks say that fields cannot. */
#include <check.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "field.h"
#include "suites.h"

#define FOLDER "schemas/events/"
static const char id_pattern[] = "^[A-Za-z0-9._:-]{1,64}$";

/* ---- Comparing. The first difference is told by its path. ---- */

static char difference[512];

static bool differs(const char *path, const char *what)
{
    if (!*difference)
        snprintf(difference, sizeof difference, "%s: %s", path, what);
    return false;
}

static bool is_text(const json_t *schema, const char *keyword, const char *value)
{
    const char *is = json_string_value(json_object_get(schema, keyword));
    return is && strcmp(is, value) == 0;
}

static bool is_number(const json_t *schema, const char *keyword, int64_t value)
{
    const json_t *is = json_object_get(schema, keyword);
    return json_is_integer(is) && json_integer_value(is) == value;
}

static bool lists(const json_t *array, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(array, i, item) if (json_is_string(item) &&
                                           strcmp(json_string_value(item), text) == 0) return true;
    return false;
}

static bool is_enum(const json_t *schema, const char *const *names)
{
    const json_t *list = json_object_get(schema, "enum");
    size_t n = 0;

    for (names += !**names; *names; names++, n++)
        if (!lists(list, *names))
            return false;
    return json_array_size(list) == n;
}

/* Nothing stands in the schema that the table does not know of. */
static bool only(const json_t *schema, const char *keywords)
{
    const char *keyword, *at;
    json_t *value;

    json_object_foreach((json_t *)schema, keyword, value)
    {
        at = strstr(keywords, keyword);
        if (!at || at[strlen(keyword)] != ' ')
            return false;
    }
    return true;
}

static bool same_members(const struct saga_field *fields, const json_t *schema, const char *path);

static bool same_field(const struct saga_field *f, const json_t *schema, const char *path)
{
    char pattern[64];

    snprintf(pattern, sizeof pattern, "^[A-Z]{%d}$", (int)f->min);
    switch (f->type) {
    case SAGA_ID:
        return (is_text(schema, "type", "string") && is_text(schema, "pattern", id_pattern) &&
                only(schema, "type pattern description ")) ||
               differs(path, "is an id in the table");
    case SAGA_CODE:
        return (is_text(schema, "type", "string") && is_text(schema, "pattern", pattern) &&
                f->min == f->max && only(schema, "type pattern description ")) ||
               differs(path, "is a code in the table");
    case SAGA_TEXT:
        return (is_text(schema, "type", "string") && is_number(schema, "minLength", f->min) &&
                is_number(schema, "maxLength", f->max) &&
                only(schema, "type minLength maxLength default description ")) ||
               differs(path, "is a text of other lengths in the table");
    case SAGA_INT:
        return (is_text(schema, "type", "integer") && is_number(schema, "minimum", f->min) &&
                is_number(schema, "maximum", f->max) &&
                only(schema, "type minimum maximum description ")) ||
               differs(path, "is an integer of another range in the table");
    case SAGA_NAME:
        return (is_text(schema, "type", "string") && is_enum(schema, f->names) &&
                only(schema, "type enum default description ")) ||
               differs(path, "is a name with other values in the table");
    case SAGA_OBJECT:
        return (is_text(schema, "type", "object") && same_members(f->of, schema, path) &&
                only(schema, "type required properties if then description ")) ||
               differs(path, "is an object in the table");
    case SAGA_LIST: {
        const json_t *items = json_object_get(schema, "items");
        return (is_text(schema, "type", "array") && is_number(schema, "minItems", f->min) &&
                is_number(schema, "maxItems", f->max) && is_text(items, "type", "object") &&
                same_members(f->of, items, path) && only(items, "type required properties ") &&
                only(schema, "type minItems maxItems items description ")) ||
               differs(path, "is a list of other items in the table");
    }
    default:
        return differs(path, "has a type that no payload should have");
    }
}

static bool same_members(const struct saga_field *fields, const json_t *schema, const char *path)
{
    const json_t *members = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    size_t n = 0, must = 0;
    char inner[256];

    for (; fields->name; fields++, n++, must += !fields[-1].optional) {
        const json_t *member = json_object_get(members, fields->name);
        snprintf(inner, sizeof inner, "%s.%s", path, fields->name);
        if (!member)
            return differs(inner, "is missing in the schema");
        if (lists(required, fields->name) == fields->optional)
            return differs(inner, "is required in one and optional in the other");
        if (!same_field(fields, member, inner))
            return false;
    }
    if (json_object_size(members) != n)
        return differs(path, "has a member that the table has not");
    return json_array_size(required) == must || differs(path, "requires what is no member");
}

static bool is_request(const struct saga_event *event)
{
    for (int i = 0; all_requests[i]; i++)
        if (all_requests[i] == event)
            return true;
    return false;
}

static void strike(json_t *members, json_t *required, const char *name)
{
    json_object_del(members, name);
    for (size_t i = json_array_size(required); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(required, i)), name) == 0)
            json_array_remove(required, i);
}

/* The whole schema of an event or request: type and order_id stand before the table's members. */
static bool same(const struct saga_event *event, const json_t *schema)
{
    json_auto_t *rest = json_deep_copy(schema);
    json_t *members = json_object_get(rest, "properties"),
           *must = json_object_get(rest, "required");
    bool keyed = event != &place_order; /* the only one that may come without order_id */
    char urn[128];

    *difference = 0;
    snprintf(urn, sizeof urn, "urn:saga:schema:%s", event->type);
    if (!is_text(rest, "$schema", "https://json-schema.org/draft/2020-12/schema") ||
        !is_text(rest, "$id", urn) || !is_text(rest, "title", event->type) ||
        !is_text(rest, "type", "object") ||
        !*json_string_value(json_object_get(rest, "description")) ||
        !only(rest, "$schema $id title description type required properties examples "))
        return differs(event->type, "$schema, $id, title, type or description");
    if (lists(must, "type") != is_request(event) || lists(must, "order_id") != keyed)
        return differs(event->type, "type or order_id is required, or is not");
    if (!is_text(json_object_get(members, "order_id"), "type", "string") ||
        !is_text(json_object_get(members, "order_id"), "pattern", id_pattern))
        return differs(event->type, "order_id is not an id");
    if (is_request(event) && !is_text(json_object_get(members, "type"), "const", event->type))
        return differs(event->type, "type is another");
    strike(members, must, "order_id");
    strike(members, must, "type");
    return same_members(event->fields, rest, event->type);
}

static json_t *schema_of(const struct saga_event *event)
{
    char path[128];
    json_error_t why;

    snprintf(path, sizeof path, FOLDER "%s.json", event->type);
    json_t *schema = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    ck_assert_msg(schema, "%s: %s", path, why.text);
    return schema;
}

/* ---- Every event and request, one after the other ---- */

enum { MESSAGES_MAX = 64 };
static const struct saga_event *messages[MESSAGES_MAX];
static int messages_n;

static void gather(void)
{
    messages_n = 0;
    for (int i = 0; all_requests[i]; i++)
        messages[messages_n++] = all_requests[i];
    for (int i = 0; all_events[i]; i++)
        messages[messages_n++] = all_events[i];
}

/* Reads data by the table of fields alone. -> false: refused, err says why */
static void *read_data(const struct saga_event *event, const json_t *data, struct saga_arena *arena,
                       struct saga_err *err)
{
    char *text = json_dumps(data, JSON_COMPACT);
    size_t n = strlen(text);
    char *copy = saga_arena_text(arena, text, n);
    struct saga_json json;
    void *out = saga_arena_zero(arena, event->size ? event->size : 1);

    free(text);
    *err = (struct saga_err){0};
    saga_json_init(&json, copy, n, arena, err);
    return saga_fields_read(event->fields, &json, "data", out, arena, err) == 0 &&
                   saga_json_end(&json) == 0
               ? out
               : NULL;
}

/* The tables of fields and the JSON Schemas say the same of every member. */
START_TEST(tables_and_schemas_agree)
{
    for (int i = 0; i < messages_n; i++) {
        json_auto_t *schema = schema_of(messages[i]);
        ck_assert_msg(same(messages[i], schema), "%s", difference);
    }
}
END_TEST

/* There is no schema of something that no table describes. */
START_TEST(no_schema_stands_alone)
{
    DIR *folder = opendir(FOLDER);
    int n = 0;

    ck_assert_ptr_nonnull(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        n += strstr(entry->d_name, ".json") != NULL;
    closedir(folder);
    ck_assert_int_eq(n, messages_n);
}
END_TEST

/* Alters and takes out, one after the other, all that stands in a part of a schema. -> how many */
static int alter(const struct saga_event *event, json_t *root, json_t *part)
{
    static const char *const free_to_say[] = {"description", "default", "if", "then", NULL};
    json_auto_t *members = json_copy(part); /* part itself is changed on the way */
    const char *name;
    json_t *value;
    int n = 0;

    json_object_foreach(members, name, value)
    {
        bool counts = true;
        for (int i = 0; free_to_say[i]; i++)
            counts &= strcmp(name, free_to_say[i]) != 0;
        if (!counts)
            continue;
        if (json_is_object(value))
            n += alter(event, root, value);
        json_object_set_new(part, name, json_integer(-7));
        ck_assert_msg(!same(event, root), "%s: an altered %s goes unnoticed", event->type, name);
        json_object_del(part, name);
        ck_assert_msg(!same(event, root), "%s: a missing %s goes unnoticed", event->type, name);
        json_object_set(part, name, value);
        n++;
    }
    return n;
}

/* The comparison can fail: whatever is taken out of a schema or altered in it is noticed. */
START_TEST(an_altered_schema_is_noticed)
{
    static const struct saga_event *const some[] = {&place_order, &reservation_failed,
                                                    &payment_refunded, &cancel_order, NULL};
    for (int i = 0; some[i]; i++) {
        json_auto_t *schema = schema_of(some[i]);
        ck_assert_msg(alter(some[i], schema, json_object_get(schema, "properties")) > 5, "%s",
                      some[i]->type);
        ck_assert_msg(same(some[i], schema), "%s", difference);
    }
}
END_TEST

/* Each example of a schema is read by its table and its check, and written it is the same again. */
START_TEST(examples_are_read_and_written)
{
    for (int i = 0; i < messages_n; i++) {
        const struct saga_event *event = messages[i];
        json_auto_t *schema = schema_of(event);
        const json_t *examples = json_object_get(schema, "examples");
        size_t k;
        json_t *example;

        ck_assert_msg(json_array_size(examples) > 0, "%s has no example", event->type);
        json_array_foreach(examples, k, example)
        {
            struct saga_arena arena = {0};
            struct saga_buf out = {0};
            struct saga_err err;
            const char *why = NULL;
            const void *data = read_data(event, example, &arena, &err);

            ck_assert_msg(data, "%s: %s", event->type, err.text);
            ck_assert_msg(!event->check || event->check(data, &why), "%s: %s", event->type, why);
            saga_buf_str(&out, "{");
            saga_fields_write(event->fields, data, &out);
            saga_buf_add(&out, "}", 2);
            json_auto_t *written = json_loads(out.at, JSON_REJECT_DUPLICATES, NULL);
            json_object_del(example, "type");
            json_object_del(example, "order_id");
            ck_assert_msg(json_equal(written, example), "%s: %s", event->type, out.at);
            saga_buf_free(&out);
            saga_arena_free(&arena);
        }
    }
}
END_TEST

/* ---- Limits, at n and n + 1, of every member of every table ---- */

struct place { /* in an example: the object whose member is altered */
    const struct saga_event *event;
    const json_t *root;
    json_t *object;
    const char *name;
};

static void expect(const struct place *p, json_t *value, bool accepted)
{
    struct saga_arena arena = {0};
    struct saga_err err;
    json_t *old = json_incref(json_object_get(p->object, p->name));
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    json_object_set_new(p->object, p->name, value);
    bool is = read_data(p->event, p->root, &arena, &err) != NULL;
    ck_assert_msg(is == accepted, "%s: %s %.300s: %s", p->event->type, p->name, shown, err.text);
    ck_assert_msg(accepted || strstr(err.text, p->name), "%s: %s is not named in: %s",
                  p->event->type, p->name, err.text);
    json_object_set_new(p->object, p->name, old);
    free(shown);
    saga_arena_free(&arena);
}

static json_t *text_of(const char *character, int64_t n)
{
    struct saga_buf b = {0};

    for (int64_t i = 0; i < n; i++)
        saga_buf_str(&b, character);
    saga_buf_add(&b, "", 1);
    json_t *text = json_string(b.at);
    saga_buf_free(&b);
    return text;
}

static json_t *list_of(const json_t *item, int64_t n)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < n; i++)
        json_array_append_new(list, json_deep_copy(item));
    return list;
}

static void limits_of_members(const struct saga_event *event, const struct saga_field *fields,
                              const json_t *root, json_t *object);

static void limits_of(const struct saga_field *f, struct place p)
{
    json_t *value = json_object_get(p.object, f->name);

    switch (f->type) {
    case SAGA_ID:
        expect(&p, text_of("z", 64), true), expect(&p, text_of("z", 65), false);
        expect(&p, json_string("Az09._:-"), true), expect(&p, json_string(""), false);
        expect(&p, json_string("a b"), false), expect(&p, json_string("\u00e9"), false);
        break;
    case SAGA_CODE:
        expect(&p, text_of("Z", f->max), true), expect(&p, text_of("Z", f->max + 1), false);
        expect(&p, text_of("Z", f->min - 1), false), expect(&p, text_of("z", f->min), false);
        break;
    case SAGA_TEXT: /* counted in code points: the last is of four bytes */
        expect(&p, text_of("x", f->max), true), expect(&p, text_of("x", f->max + 1), false);
        expect(&p, text_of("\U0001F34F", f->max), true);
        expect(&p, text_of("\U0001F34F", f->max + 1), false);
        expect(&p, text_of("x", f->min), true);
        if (f->min)
            expect(&p, text_of("x", f->min - 1), false);
        break;
    case SAGA_INT:
        expect(&p, json_integer(f->min), true), expect(&p, json_integer(f->min - 1), false);
        expect(&p, json_integer(f->max), true), expect(&p, json_integer(f->max + 1), false);
        expect(&p, json_real(1.0), false), expect(&p, json_string("1"), false);
        break;
    case SAGA_NAME:
        for (int i = !**f->names; f->names[i]; i++)
            expect(&p, json_string(f->names[i]), true);
        expect(&p, json_string("neither"), false), expect(&p, json_string(""), false);
        break;
    case SAGA_OBJECT:
        expect(&p, json_array(), false);
        limits_of_members(p.event, f->of, p.root, value);
        break;
    case SAGA_LIST:
        expect(&p, list_of(json_array_get(value, 0), f->max), true);
        expect(&p, list_of(json_array_get(value, 0), f->max + 1), false);
        expect(&p, list_of(NULL, 0), f->min == 0);
        expect(&p, json_object(), false);
        limits_of_members(p.event, f->of, p.root, json_array_get(value, 0));
        break;
    default:
        ck_abort_msg("%s: no payload should have this type", f->name);
    }
    expect(&p, json_true(), false);
    expect(&p, json_null(), f->optional);
}

static void limits_of_members(const struct saga_event *event, const struct saga_field *fields,
                              const json_t *root, json_t *object)
{
    for (; fields->name; fields++) {
        struct saga_arena arena = {0};
        struct saga_err err;
        json_t *old = json_incref(json_object_get(object, fields->name));

        json_object_del(object, fields->name);
        bool accepted = read_data(event, root, &arena, &err) != NULL;
        ck_assert_msg(accepted == fields->optional, "%s without %s", event->type, fields->name);
        saga_arena_free(&arena);
        if (old) {
            json_object_set_new(object, fields->name, old);
            limits_of(fields, (struct place){event, root, object, fields->name});
        }
    }
}

/* Every member is accepted at its limits and refused beyond, missing and null, with an error that
 * names it. */
START_TEST(members_have_their_limits)
{
    for (int i = 0; i < messages_n; i++) {
        json_auto_t *schema = schema_of(messages[i]);
        json_t *example = json_array_get(json_object_get(schema, "examples"), 0);
        limits_of_members(messages[i], messages[i]->fields, example, example);
    }
}
END_TEST

/* ---- What fields cannot say ---- */

static bool passes(const struct saga_event *event, struct order order)
{
    const char *why = NULL;
    bool ok = event->check(&order, &why);

    ck_assert_msg(ok == (why == NULL), "%s: a refusal has its reason, and only it", event->type);
    return ok;
}

static struct order order_of(int n, struct line *lines, int64_t amount)
{
    return (struct order){"c", "EUR", amount, {n, lines}, {NOW, "tok_ok"}};
}

static const struct saga_event *const with_lines[] = {&place_order, &order_created,
                                                      &inventory_reserved};

/* No SKU stands in two lines, wherever the two are, in 2 lines and in 100. */
START_TEST(a_sku_twice_is_refused)
{
    static char sku[MAX_LINES][16];
    struct line lines[MAX_LINES];

    for (int i = 0; i < MAX_LINES; i++) {
        snprintf(sku[i], sizeof sku[i], "sku-%d", i);
        lines[i] = (struct line){sku[i], 1, 1};
    }
    for (int e = 0; e < 3; e++)
        for (int n = 1; n <= MAX_LINES; n += n < 4 ? 1 : 32) {
            ck_assert(passes(with_lines[e], order_of(n, lines, n)));
            for (int i = 0; i < n; i++)
                for (int k = 0; k < i; k++) {
                    lines[i].sku = sku[k];
                    ck_assert(!passes(with_lines[e], order_of(n, lines, n)));
                    lines[i].sku = sku[i];
                }
        }
}
END_TEST

/* A token is required for mode now and only for it. */
START_TEST(mode_now_needs_a_token)
{
    struct line line = {"a", 1, 1};

    for (int e = 0; e < 3; e++) {
        struct order order = order_of(1, &line, 1);
        order.payment.token = NULL;
        ck_assert(!passes(with_lines[e], order));
        order.payment.mode = LATER;
        ck_assert(passes(with_lines[e], order));
        order.payment.token = "tok_ok";
        ck_assert(passes(with_lines[e], order));
    }
}
END_TEST

/* The sum of an order is at most 10^15: exactly that passes, one more does not, nor does a sum that
 * would wrap around. */
START_TEST(the_sum_is_limited)
{
    struct line exact[] = {{"a", 1000, MAX_PRICE}, {"b", 1, 0}};
    struct line over[] = {{"a", 1000, MAX_PRICE}, {"b", 1, 1}};
    struct line wraps[MAX_LINES];
    static char sku[MAX_LINES][16];
    int64_t sum = -1;

    for (int i = 0; i < MAX_LINES; i++) {
        snprintf(sku[i], sizeof sku[i], "sku-%d", i);
        wraps[i] = (struct line){sku[i], MAX_QUANTITY, MAX_PRICE};
    }
    ck_assert(order_amount(&(struct lines){2, exact}, &sum));
    ck_assert_int_eq(sum, MAX_AMOUNT);
    ck_assert(passes(&place_order, order_of(2, exact, 0)));
    ck_assert(!order_amount(&(struct lines){2, over}, &sum));
    ck_assert(!passes(&place_order, order_of(2, over, 0)));
    for (int n = 1; n <= MAX_LINES; n++) /* 19 x 10^18 is above 2^64 */
        ck_assert(!passes(&place_order, order_of(n, wraps, 0)));
}
END_TEST

/* OrderCreated states the sum of its lines; InventoryReserved has no prices to compare with. */
START_TEST(the_stated_amount_is_the_sum)
{
    struct line lines[] = {{"a", 2, 150}, {"b", 1, 90}};

    ck_assert(passes(&order_created, order_of(2, lines, 390)));
    ck_assert(!passes(&order_created, order_of(2, lines, 389)));
    ck_assert(!passes(&order_created, order_of(2, lines, 391)));
    ck_assert(passes(&inventory_reserved, order_of(2, lines, 1)));
}
END_TEST

Suite *schemas_suite(void)
{
    Suite *suite = suite_create("schemas");
    TCase *agree = tcase_create("agree"), *limits = tcase_create("limits");

    tcase_add_checked_fixture(agree, gather, NULL);
    tcase_add_test(agree, tables_and_schemas_agree);
    tcase_add_test(agree, no_schema_stands_alone);
    tcase_add_test(agree, an_altered_schema_is_noticed);
    tcase_add_test(agree, examples_are_read_and_written);
    suite_add_tcase(suite, agree);
    tcase_add_checked_fixture(limits, gather, NULL);
    tcase_add_test(limits, members_have_their_limits);
    tcase_add_test(limits, a_sku_twice_is_refused);
    tcase_add_test(limits, mode_now_needs_a_token);
    tcase_add_test(limits, the_sum_is_limited);
    tcase_add_test(limits, the_stated_amount_is_the_sum);
    suite_add_tcase(suite, limits);
    return suite;
}
