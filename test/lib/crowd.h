/* Many HTTP clients at once, by libcurl's multi interface. */
#ifndef CROWD_H
#define CROWD_H

#include <jansson.h>
#include <stdbool.h>

enum { CROWD_HEADERS = 3 };

struct crowd_ask { /* {0} but for what is asked; it stays where it is until it is answered */
    const char *url;
    const char *body; /* NULL: GET */
    const char *header[CROWD_HEADERS];
    /* Asked again at once while this says so; NULL: never. */
    bool (*again)(const struct crowd_ask *ask);
    int tries;
    long status;    /* of the newest try; 0: the connection broke, or nobody answered */
    json_t *answer; /* NULL: none, or no JSON; the caller's */
    char location[128], applied[32]; /* Location, Preference-Applied; "": not there */
    char why[80];                    /* of the newest: what libcurl says, or a problem's title */
    void *curl, *list;               /* private, */
    char *text;
    size_t text_n, text_cap;
    struct crowd_ask *next;
};

struct crowd;

/* One that is not answered within a minute fails the test: asked again, it would hide that. */
struct crowd *crowd_new(int at_once); /* so many connections at most */
void crowd_add(struct crowd *c, struct crowd_ask *ask);
int crowd_turn(struct crowd *c); /* for at most 10 ms. -> how many are not answered yet */
/* Turns until all are answered. -> NULL; or what of one of them, when none is for so many seconds */
const char *crowd_wait(struct crowd *c, double seconds);
void crowd_free(struct crowd *c);

#endif
