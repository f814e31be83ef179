/* stock get, stock set: inventory-svc over HTTP. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uuid/uuid.h>

#include "ctl.h"
#include "http_client.h"

enum { TRIES = 3 };

static const char *key;
static int64_t if_version = -1; /* -1: whatever it is */

static json_int_t number(const json_t *stock, const char *name)
{
    return json_integer_value(json_object_get(stock, name));
}

static void print_head(void)
{
    if (!ctl_json)
        printf("%-24s %12s %12s %12s %12s %8s\n", "SKU", "AVAILABLE", "RESERVED", "SHIPPED",
               "RECEIVED", "VERSION");
}

static void print(const json_t *stock)
{
    if (ctl_json) {
        ctl_print_json(stock);
        return;
    }
    printf("%-24s %12lld %12lld %12lld %12lld %8lld\n",
           json_string_value(json_object_get(stock, "sku")) ?: "?", number(stock, "available"),
           number(stock, "reserved"), number(stock, "shipped"), number(stock, "received"),
           number(stock, "version"));
}

static int get_all(void)
{
    char *after = strdup("");
    print_head();
    while (after) {
        json_t *page = ctl_get("inventory", "/api/v1/inventory?limit=500&after=%s", after), *stock;
        size_t i;
        json_array_foreach(json_object_get(page, "inventory"), i, stock) print(stock);
        const char *next = json_string_value(json_object_get(page, "next"));
        free(after);
        after = next ? ctl_escape(next) : NULL;
        json_decref(page);
    }
    return CTL_OK;
}

static int get(int n, char **args)
{
    if (n == 0)
        return get_all();
    int status = CTL_OK;
    print_head();
    for (int i = 0; i < n; i++) {
        char *sku = ctl_escape(args[i]);
        json_t *stock = ctl_get("inventory", "/api/v1/inventory/%s", sku);
        free(sku);
        if (stock) {
            print(stock);
        } else {
            fprintf(stderr, "sagactl: %s: no such SKU\n", args[i]);
            status = CTL_NO;
        }
        json_decref(stock);
    }
    return status;
}

/* The same key at each try: a lost answer must not set the stock twice. */
static int set(int n, char **args)
{
    (void)n;
    char *end, random[37], tag[24];
    long long quantity = strtoll(args[1], &end, 10);
    if (!*args[1] || *end || quantity < 0)
        ctl_die(CTL_USAGE, "%.60s: expected a quantity of 0 or more", args[1]);
    if (!key) {
        uuid_t uuid;
        uuid_generate(uuid);
        uuid_unparse_lower(uuid, random);
        key = random;
    }
    const struct ctl_service *inventory = ctl_service("inventory");
    json_t *body = json_pack("{s:s,s:I}", "sku", args[0], "quantity", (json_int_t)quantity),
           *answer;
    if (!body)
        ctl_die(CTL_USAGE, "%.60s: is not UTF-8", args[0]);
    if (if_version >= 0)
        snprintf(tag, sizeof tag, "\"%" PRId64 "\"", if_version);
    const char *why = "", *match = if_version >= 0 ? tag : NULL;
    long status = 0;
    for (int i = 0; i < TRIES && (status == 0 || status == 503); i++) {
        if (i) {
            json_decref(answer);
            nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        }
        status = ctl_http(inventory, "/api/v1/inventory", body, &(struct ctl_condition){key, match},
                          &answer, NULL, &why);
    }
    json_decref(body);
    if (status == 0)
        ctl_die(
            CTL_AWAY,
            "inventory-svc does not answer at %s (INVENTORY_URL): %s. Should it have been asked, "
            "it may have done it: a repeat with --key %s does nothing twice",
            ctl_url(inventory), why, key);
    if (status >= 300 || !answer)
        ctl_refused("inventory-svc", status, answer);
    print_head();
    print(answer);
    json_decref(answer);
    return CTL_OK;
}

static const struct ctl_option set_options[] = {
    {"key", "TEXT", "Idempotency-Key: a repeat with the same one changes nothing", .text = &key},
    {"if-version", "N", "only if that is the SKU's version: nobody has sold or set it since",
     .number = &if_version, .min = 0, .max = INT64_MAX},
    {0}};

const struct ctl_command ctl_stock[] = {
    {"stock get", "[SKU...]", 0, 1000, "shows the stock of all SKUs, or of those named",
     "  sagactl stock get\n"
     "  sagactl stock get apple pear --json\n",
     NULL, get},
    {"stock set", "SKU QUANTITY", 2, 2, "sets what is available of an SKU, or creates it",
     "  sagactl stock set apple 500                    whatever it was\n"
     "  sagactl stock get apple                        20 available, version 7: 480 more have "
     "come\n"
     "  sagactl stock set apple 500 --if-version 7     unless one has been sold meanwhile\n"
     "  sagactl stock set apple 500 --key count-2026-11-24\n",
     set_options, set},
    {0},
};
