/* schemas/openapi.yaml against the services' tables of routes: each route is described, and nothing else
 * is. What they answer is compared by the live suite schemathesis. */
#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "health.h"
#include "http.h"
#include "park_http.h"
#include "suites.h"

/* The services' headers do not go together in one file. */
extern const struct saga_route *const order_routes, *const inventory_routes, *const payment_routes;

enum { OPERATIONS = 64 };
static char described[OPERATIONS][96]; /* "POST /api/v1/orders" */
static int described_n;
static char elsewhere[OPERATIONS][96]; /* paths that openapi.yaml has of common.yaml */
static int elsewhere_n;

static size_t indent_of(const char *line)
{
    return strspn(line, " ");
}

/* Paths stand at the indentation, their methods two further in. Of openapi.yaml only what is below
 * "paths:". */
static void read_paths(const char *file, size_t indent)
{
    char line[512], path[96] = "";
    bool paths = indent == 0;
    FILE *f = fopen(file, "re");

    ck_assert_msg(f != NULL, "%s", file);
    while (fgets(line, sizeof line, f)) {
        const char *word = line + indent_of(line);
        size_t n = strcspn(word, ":");
        if (indent && indent_of(line) == 0 && isalpha((unsigned char)*line))
            paths = strcmp(line, "paths:\n") == 0;
        if (paths && indent_of(line) == indent && *word == '/') {
            snprintf(path, sizeof path, "%.*s", (int)n, word);
            if (strstr(word, "$ref"))
                strcpy(elsewhere[elsewhere_n++], path);
        } else if (paths && indent_of(line) == indent + 2 && *path && word[n] == ':') {
            ck_assert_int_lt(described_n, OPERATIONS);
            char *to = described[described_n++];
            snprintf(to, sizeof *described, "%.*s %s", (int)n, word, path);
            for (; *to != ' '; to++)
                *to = (char)toupper((unsigned char)*to);
        }
    }
    fclose(f);
}

static bool has(char (*list)[96], int n, const char *text)
{
    for (int i = 0; i < n; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

/* Every route of the tables is described, once, and every description is of one. */
START_TEST(routes_and_descriptions_agree)
{
    const struct saga_route *const tables[] = {saga_health_routes, saga_command_routes,
                                               saga_park_routes,   order_routes,
                                               inventory_routes,   payment_routes};
    char name[160];
    int n = 0;

    read_paths("schemas/openapi.yaml", 2);
    read_paths("schemas/http/common.yaml", 0);
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct saga_route *r = tables[t]; r->method; r++, n++) {
            snprintf(name, sizeof name, "%s %s", r->method, r->path);
            ck_assert_msg(has(described, described_n, name), "%s is not described", name);
            if (t < 3)
                ck_assert_msg(has(elsewhere, elsewhere_n, r->path), "no $ref to %s", r->path);
        }
    ck_assert_int_gt(n, 0);
    ck_assert_msg(described_n == n, "%d are described, %d are there", described_n, n);
}
END_TEST

Suite *openapi_suite(void)
{
    Suite *s = suite_create("openapi");
    TCase *t = tcase_create("openapi");

    tcase_add_test(t, routes_and_descriptions_agree);
    suite_add_tcase(s, t);
    return s;
}
