/* Many HTTP clients at once. See crowd.h. */
#include "crowd.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "test.h"

enum { ANSWER_S = 60 /* longer than anybody may take */ };

struct crowd {
    CURLM *multi;
    int at_once, under_way, left;
    struct crowd_ask *first, **end; /* those that wait for their turn */
    struct crowd_ask *asked;        /* those under way, the newest try first */
};

struct crowd *crowd_new(int at_once)
{
    struct crowd *c = calloc(1, sizeof *c);

    MUST(c && (c->multi = curl_multi_init()), "curl");
    c->at_once = at_once;
    c->end = &c->first;
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)at_once);
    return c;
}

static size_t take(char *data, size_t one, size_t n, void *to)
{
    struct crowd_ask *ask = to;

    n *= one;
    if (ask->text_n + n > ask->text_cap) {
        ask->text_cap = 2 * (ask->text_n + n);
        ask->text = realloc(ask->text, ask->text_cap);
        MUST(ask->text, "out of memory");
    }
    memcpy(ask->text + ask->text_n, data, n);
    ask->text_n += n;
    return n;
}

static void keep(char *to, size_t room, const char *line, size_t n, const char *name)
{
    size_t m = strlen(name);

    if (n > m && strncasecmp(line, name, m) == 0)
        snprintf(to, room, "%.*s", (int)(strcspn(line + m, "\r\n")), line + m);
}

static size_t take_header(char *data, size_t one, size_t n, void *to)
{
    struct crowd_ask *ask = to;

    keep(ask->location, sizeof ask->location, data, one * n, "Location: ");
    keep(ask->applied, sizeof ask->applied, data, one * n, "Preference-Applied: ");
    return one * n;
}

static void begin(struct crowd *c, struct crowd_ask *ask)
{
    CURL *curl = curl_easy_init();
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");

    MUST(curl && list, "curl");
    for (int i = 0; i < CROWD_HEADERS && ask->header[i]; i++)
        list = curl_slist_append(list, ask->header[i]);
    curl_easy_setopt(curl, CURLOPT_URL, ask->url);
    if (ask->body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, ask->body);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)((test_until(ANSWER_S) - test_now()) / 1000));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, ask);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, ask);
    curl_easy_setopt(curl, CURLOPT_PRIVATE, ask);
    ask->curl = curl;
    ask->list = list;
    ask->tries++;
    ask->text_n = 0;
    *ask->location = *ask->applied = 0;
    json_decref(ask->answer);
    ask->answer = NULL;
    curl_multi_add_handle(c->multi, curl);
    ask->next = c->asked;
    c->asked = ask;
    c->under_way++;
}

void crowd_add(struct crowd *c, struct crowd_ask *ask)
{
    ask->next = NULL;
    *c->end = ask;
    c->end = &ask->next;
    c->left++;
}

/* What libcurl has done for the one whose newest try is the oldest. */
static const char *oldest(const struct crowd *c)
{
    const struct crowd_ask *ask = c->asked;
    curl_off_t sent = 0, since = 0;
    long port = 0;

    while (ask->next)
        ask = ask->next;
    curl_easy_getinfo(ask->curl, CURLINFO_LOCAL_PORT, &port);
    curl_easy_getinfo(ask->curl, CURLINFO_SIZE_UPLOAD_T, &sent);
    curl_easy_getinfo(ask->curl, CURLINFO_TOTAL_TIME_T, &since);
    return text(
        "%s from port %ld: try %d for %.3f s, %ld bytes of the body sent, %zu of an answer; "
        "the try before it: %ld %s",
        ask->url, port, ask->tries, (double)since / 1e6, (long)sent, ask->text_n, ask->status,
        ask->why);
}

static void leave(struct crowd *c, const struct crowd_ask *ask)
{
    struct crowd_ask **at = &c->asked;

    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
}

static void end(struct crowd *c, struct crowd_ask *ask, CURLcode code)
{
    const char *title = code ? curl_easy_strerror(code) : NULL;

    MUST(code != CURLE_OPERATION_TIMEDOUT, "%s", oldest(c));
    ask->status = 0;
    if (code == CURLE_OK) {
        curl_easy_getinfo(ask->curl, CURLINFO_RESPONSE_CODE, &ask->status);
        ask->answer = json_loadb(ask->text, ask->text_n, 0, NULL);
        title = json_string_value(json_object_get(ask->answer, "title"));
    }
    snprintf(ask->why, sizeof ask->why, "%s", title ? title : "");
    leave(c, ask);
    curl_multi_remove_handle(c->multi, ask->curl);
    curl_easy_cleanup(ask->curl);
    curl_slist_free_all(ask->list);
    c->under_way--;
    if (ask->again && ask->again(ask)) {
        begin(c, ask);
        return;
    }
    free(ask->text);
    ask->text = NULL;
    ask->text_cap = 0;
    ask->curl = NULL;
    c->left--;
}

int crowd_turn(struct crowd *c)
{
    int running, waiting;
    CURLMsg *m;

    while (c->first && c->under_way < c->at_once) {
        struct crowd_ask *ask = c->first;
        c->first = ask->next;
        if (!c->first)
            c->end = &c->first;
        begin(c, ask);
    }
    curl_multi_perform(c->multi, &running);
    curl_multi_poll(c->multi, NULL, 0, 10, NULL);
    curl_multi_perform(c->multi, &running);
    while ((m = curl_multi_info_read(c->multi, &waiting)))
        if (m->msg == CURLMSG_DONE) {
            struct crowd_ask *ask = NULL;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&ask);
            end(c, ask, code);
        }
    return c->left;
}

const char *crowd_wait(struct crowd *c, double seconds)
{
    int64_t until = test_until(seconds);

    for (int left = c->left, now; (now = crowd_turn(c)) > 0; left = now) {
        if (now < left)
            until = test_until(seconds);
        if (test_now() >= until)
            return text("%d are left, none was answered for %g s; %s", now, seconds, oldest(c));
    }
    return NULL;
}

void crowd_free(struct crowd *c)
{
    if (!c)
        return;
    MUST(c->left == 0, "%d of the crowd are not answered", c->left);
    curl_multi_cleanup(c->multi);
    free(c);
}
