/* The routes that every service has: /livez, /readyz, /lanes, /metrics. Used by http.c alone; they run
 * in its thread and see of the engine only the view. */
#ifndef SAGA_HEALTH_H
#define SAGA_HEALTH_H

#include "http.h"

extern const struct saga_route saga_health_routes[]; /* up to {0} */

/* Before the thread starts. Both live as long as the process. */
void saga_health_init(const struct saga_service *service, const struct saga_view *view);

#endif
