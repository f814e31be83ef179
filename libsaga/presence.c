/* See presence.h. */
#include "presence.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

#include "mem.h"

static int32_t number;

static void draw(void)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = (uint32_t)getpid();
    number = (int32_t)(random & INT32_MAX);
    number += number == 0;
}

int32_t saga_presence(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, draw);
    return number;
}

const char *saga_presence_sql(const char *first)
{
    struct saga_buf sql = {0};

    saga_buf_printf(&sql, "%s; select pg_advisory_lock_shared(" SAGA_PRESENCE ", %d)", first,
                    (int)saga_presence());
    saga_buf_add(&sql, "", 1);
    return sql.at;
}
