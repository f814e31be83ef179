/* HTTP for sagactl: asks the services. One that does not answer ends the program with CTL_AWAY
 * unless the caller wants to know. */
#ifndef CTL_HTTP_CLIENT_H
#define CTL_HTTP_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { CTL_SERVICES = 3 };
struct ctl_service {
    const char *name;     /* "order-svc" */
    const char *variable; /* "ORDER_URL" */
    const char *url;      /* its default */
};
extern const struct ctl_service ctl_services[CTL_SERVICES];
const struct ctl_service *ctl_service(const char *name); /* "order-svc" or "order"; NULL: none */
const char *ctl_url(const struct ctl_service *service);

struct ctl_condition { /* of a POST; NULL: without */
    const char *key;   /* Idempotency-Key */
    const char *match; /* If-Match */
};

/* GET, or POST where body is not NULL; when may be NULL. path begins with a slash.
 * *json: the answer, NULL if it is none; the caller's. -> HTTP status, 0: no answer (*why says it)
 */
long ctl_http(const struct ctl_service *service, const char *path, const json_t *body,
              const struct ctl_condition *when, json_t **json, char **text, const char **why);

/* GET that must be answered: 200, or 404 (-> NULL); else the program ends with what the service
 * said. */
json_t *ctl_get(const char *service, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends the program: the service has refused, json is its problem. */
_Noreturn void ctl_refused(const char *service, long status, const json_t *json);
char *ctl_escape(const char *s); /* for a path or query; the caller frees it */

#endif
