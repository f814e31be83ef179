/* HTTP from outside, by libcurl. */
#ifndef WEB_H
#define WEB_H

#include <jansson.h>

/* -> the status, 0: nobody answers. *body: the answer, NULL if it is not JSON; NULL: not wanted. */
long web_get(json_t **body, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* headers: "Name: value" up to NULL, or NULL. */
long web_post(json_t **body, const char *url, const char *const *headers, const char *json);

/* The bearer token of all questions from now on; NULL: none. It must last. */
void web_token(const char *token);

#endif
