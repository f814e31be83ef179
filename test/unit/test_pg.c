/* What pg.c does before and between statements: settings that cannot be read, and a server that falls
 * silent. What it does with statements, all live suites show. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pg.h"
#include "suites.h"
#include "test.h"

enum { PATIENCE_MS = 200, SOON_S = 5 };

/* A text that is told to nobody stands in all of these. */
static const struct {
    const char *conninfo, *says; /* NULL: it is good */
} conninfos[] = {
    {"", NULL},
    {"postgres://shop:s3cret@db:5433/shop", NULL},
    {"host=db password=s3cret", NULL},
    {"postgres://shop:s3cret@word@db:5433/shop", "%40"},
    {"postgres://shop:s3cret%zz@db/shop", "expected postgres://user:password@host/database"},
    {"host=db s3cret", "expected postgres://user:password@host/database"},
};

START_TEST(settings_are_read_and_not_repeated)
{
    struct saga_err err = {0};
    int rc = saga_pg_check(conninfos[_i].conninfo, &err);

    if (!conninfos[_i].says) {
        ck_assert_msg(rc == 0, "%s", err.text);
        return;
    }
    ck_assert_int_eq(rc, SAGA_FATAL);
    ck_assert_msg(strstr(err.text, conninfos[_i].says) != NULL, "%s", err.text);
    ck_assert_msg(strstr(err.text, "s3cret") == NULL, "%s", err.text);
}
END_TEST

/* A message of the protocol (3.0): its type, its length, which counts itself, and its content. */
static void say(int fd, char type, const char *content, size_t n)
{
    uint32_t length = htonl((uint32_t)(4 + n));

    send(fd, &type, 1, MSG_NOSIGNAL);
    send(fd, &length, 4, MSG_NOSIGNAL);
    send(fd, content, n, MSG_NOSIGNAL);
}

/* Takes anybody, tells libpq what it wants to know, answers so many statements, and no more. */
static void serve(int listener, int answers)
{
    static const char version[] = "server_version\0"
                                  "15.0",
                      standby[] = "in_hot_standby\0"
                                  "off",
                      reads[] = "default_transaction_read_only\0"
                                "off";
    int fd = accept(listener, NULL, NULL);
    char startup[1024];

    recv(fd, startup, sizeof startup, 0);
    say(fd, 'R', "\0\0\0\0", 4); /* AuthenticationOk */
    say(fd, 'S', version, sizeof version);
    say(fd, 'S', standby, sizeof standby);
    say(fd, 'S', reads, sizeof reads);
    say(fd, 'Z', "I", 1); /* ReadyForQuery */
    while (answers-- && recv(fd, startup, sizeof startup, 0) > 0) {
        say(fd, 'C', "SELECT 0", sizeof "SELECT 0"); /* CommandComplete */
        say(fd, 'Z', "I", 1);
    }
    pause();
}

/* -> its port */
static int silent_server(int answers)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert(bind(fd, (struct sockaddr *)&address, n) == 0 && listen(fd, 1) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &n) == 0);
    if (fork() == 0) {
        serve(fd, answers);
        _exit(1);
    }
    close(fd);
    return ntohs(address.sin_port);
}

/* Neither what all sessions begin with, nor what this one does, nor a statement waits for it for longer than our patience. */
START_TEST(a_silent_server_is_given_up)
{
    struct saga_err err = {0};
    struct saga_pg *pg =
        saga_pg_new(text("postgres://shop@127.0.0.1:%d/shop?sslmode=disable&gssencmode=disable",
                         silent_server(_i > 0)),
                    "unit", "order_svc");

    saga_pg_patience(pg, PATIENCE_MS);
    if (_i == 1)
        saga_pg_session(pg, "set jit = off; set statement_timeout = '5s'");
    int64_t began = test_now();
    ck_assert_int_eq(saga_pg_query(pg, "select 1", NULL, NULL, &err), SAGA_RETRY);
    ck_assert_str_eq(err.text, "database: no answer for 200 ms");
    ck_assert_int_lt(test_now() - began, SOON_S * 1000000);
    ck_assert(!saga_pg_connected(pg));
    saga_pg_free(pg);
}
END_TEST

Suite *pg_suite(void)
{
    Suite *s = suite_create("pg");
    TCase *t = tcase_create("all");

    tcase_set_timeout(t, 2 * SOON_S);
    tcase_add_loop_test(t, settings_are_read_and_not_repeated, 0,
                        sizeof conninfos / sizeof *conninfos);
    tcase_add_loop_test(t, a_silent_server_is_given_up, 0, 3);
    suite_add_tcase(s, t);
    return s;
}
