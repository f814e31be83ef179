/* See share.h. Answers stand aside until all else is done, for they are in memory only. Records stand
 * aside until what the database was asked for is done: that comes again and again, in the same order, and
 * would meet other records each time. */
#include "share.h"

bool saga_share_less(struct saga_share *s)
{
    bool asked = s->due + s->redriven > 0;

    if (s->answers && (asked || s->records))
        s->answers = 0;
    else if (asked && s->records)
        s->records = 0;
    else if (s->due && s->redriven)
        s->due = 0;
    else if (s->redriven > 1)
        s->redriven /= 2;
    else if (s->due > 1)
        s->due /= 2;
    else if (s->records > 1)
        s->records /= 2;
    else if (s->answers > 1)
        s->answers /= 2;
    else
        return false;
    return true;
}

static int twice(int n, int most)
{
    return n && n < most / 2 ? 2 * n : most;
}

bool saga_share_more(struct saga_share *s, int records_left, int answers_done)
{
    s->due = s->redriven = 0;
    s->answers_left -= answers_done;
    s->records = twice(s->records, records_left);
    if (!records_left)
        s->answers = twice(s->answers, s->answers_left);
    return s->records + s->answers > 0;
}
