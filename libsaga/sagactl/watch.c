/* watch: follows all topics, one line for each record. */
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "entry.h"
#include "kafka.h"

enum {
    WINDOW_MS = 30, /* what comes within it is put into its order before it is shown */
    MOST = 200,
};

static const char *order;
static bool from_beginning, to_end;

static void show(struct ctl_entry *e, int n)
{
    n = ctl_entries_order(e, n);
    for (int i = 0; i < n; i++) {
        ctl_entry_print(&e[i]);
        ctl_entry_free(&e[i]);
    }
    fflush(stdout);
}

static bool is_meant(const struct ctl_entry *e)
{
    return !order || strcmp(e->key, order) == 0;
}

static int watch(int argc, char **argv)
{
    (void)argc, (void)argv;
    static struct ctl_entry window[MOST];
    int64_t first = 0;
    int n = 0, rc;
    struct saga_record record;
    ctl_read(&(struct ctl_where){.topics = ctl_all_topics,
                                 .partition = -1,
                                 .from = from_beginning ? CTL_BEGINNING : CTL_END,
                                 .bounded = to_end});
    do {
        rc = ctl_next(n ? WINDOW_MS : 1000, &record);
        if (rc > 0 && (!order || ctl_entry_may_be(&record, order))) {
            ctl_entry_read(&record, &window[n]);
            if (!is_meant(&window[n]))
                ctl_entry_free(&window[n]);
            else if (n++ == 0)
                first = ctl_now_ms();
        }
        bool over = n && ctl_now_ms() - first >= WINDOW_MS;
        if (rc < 0 || n == MOST || ((rc == 0 || over) && !to_end)) {
            show(window, n);
            n = 0;
        }
    } while (rc >= 0);
    return CTL_OK;
}

static const struct ctl_option options[] = {
    {"order", "ID", "only what is about this order", .text = &order},
    {"from-beginning", NULL, "first everything that the topics still hold",
     .flag = &from_beginning},
    {"to-end", NULL, "stop at what is there now", .flag = &to_end},
    {0},
};

const struct ctl_command ctl_watch[] = {
    {"watch", "", 0, 0, "follows all topics, one line for each record",
     "  sagactl watch\n"
     "  sagactl watch --order ord-1 --from-beginning\n"
     "  sagactl watch --from-beginning --to-end --json | jq -r .type | sort | uniq -c\n",
     options, watch},
    {0},
};
