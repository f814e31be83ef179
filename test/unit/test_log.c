/* The log's lines are read by machines: each is one JSON object whatever the texts in it. Read back
 * with jansson from a pipe in stderr's place. */
#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "suites.h"

static int saved, ends[2];

static void catch_stderr(void)
{
    fflush(stderr);
    ck_assert_int_eq(pipe(ends), 0);
    saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
}

/* What was logged since, as text; stderr is itself again. */
static char *caught(void)
{
    static char text[65536];
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    close(ends[0]);
    text[n] = 0;
    return text;
}

static json_t *only_line(const char *text)
{
    ck_assert_ptr_nonnull(strchr(text, '\n'));
    ck_assert_str_eq(strchr(text, '\n'), "\n");
    json_error_t why;
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    ck_assert_msg(line != NULL, "%s: %s", why.text, text);
    return line;
}

static const char *member(const json_t *line, const char *name)
{
    const char *s = json_string_value(json_object_get(line, name));
    return s ? s : "(none)";
}

/* A line has time, level, service and message, then the members that were given. */
START_TEST(line_is_one_object)
{
    saga_log_open("order-svc", SAGA_INFO);
    catch_stderr();
    saga_log_at(SAGA_INFO, "lane taken", "\"lane\":%d,\"term\":%" PRId64, 7,
                INT64_C(1795513885123));
    json_t *line = only_line(caught());
    ck_assert_str_eq(member(line, "level"), "info");
    ck_assert_str_eq(member(line, "service"), "order-svc");
    ck_assert_str_eq(member(line, "message"), "lane taken");
    ck_assert_int_eq(json_integer_value(json_object_get(line, "lane")), 7);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "term")), INT64_C(1795513885123));
    int y, mo, d, h, mi, s, ms, n = 0;
    sscanf(member(line, "time"), "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &y, &mo, &d, &h, &mi, &s, &ms,
           &n);
    ck_assert_int_eq(n, 24);
    json_decref(line);
}
END_TEST

/* Quotes, line ends, control characters and bytes that are not UTF-8 in a server's message leave it
 * one line of valid JSON. */
START_TEST(any_text_stays_one_line)
{
    saga_log_open("order-svc", SAGA_INFO);
    catch_stderr();
    saga_log_text(SAGA_ERROR, "say \"hello\"", "a\nb\t\"c\"\\ \x01 \xc3\xa9 \xff\xc3");
    json_t *line = only_line(caught());
    ck_assert_str_eq(member(line, "message"), "say \"hello\"");
    ck_assert_str_eq(member(line, "detail"),
                     "a\nb\t\"c\"\\ \x01 \xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd");
    json_decref(line);
}
END_TEST

/* A line longer than any buffer is written whole. */
START_TEST(long_line_is_whole)
{
    static char text[20001];
    memset(text, 'x', sizeof text - 1);
    saga_log_open("order-svc", SAGA_INFO);
    catch_stderr();
    saga_log_at(SAGA_WARN, "long", "\"text\":\"%s\"", text);
    json_t *line = only_line(caught());
    ck_assert_str_eq(member(line, "text"), text);
    json_decref(line);
}
END_TEST

/* Below LOG_LEVEL nothing is written, at it and above everything. */
START_TEST(level_decides)
{
    saga_log_open("order-svc", SAGA_WARN);
    ck_assert(!saga_log_on(SAGA_INFO));
    ck_assert(saga_log_on(SAGA_WARN));
    catch_stderr();
    saga_log_at(SAGA_DEBUG, "no", NULL);
    saga_log_at(SAGA_INFO, "no", NULL);
    saga_log_text(SAGA_INFO, "no", "no");
    saga_log_at(SAGA_WARN, "yes", NULL);
    json_t *line = only_line(caught());
    ck_assert_str_eq(member(line, "message"), "yes");
    json_decref(line);
}
END_TEST

/* A reader of the log that has gone away does not end the service. */
START_TEST(closed_reader_is_survived)
{
    saga_log_open("order-svc", SAGA_INFO);
    catch_stderr();
    close(ends[0]);
    saga_log_at(SAGA_INFO, "nobody reads this", NULL);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
}
END_TEST

Suite *log_suite(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");
    tcase_add_test(t, line_is_one_object);
    tcase_add_test(t, any_text_stays_one_line);
    tcase_add_test(t, long_line_is_whole);
    tcase_add_test(t, level_decides);
    tcase_add_test(t, closed_reader_is_survived);
    suite_add_tcase(s, t);
    return s;
}
