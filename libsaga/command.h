/* What an operator decides about a lane (DESIGN.md 4.4): POST /lanes/{lane}/accept-gap, republish,
 * restart, to any process of the service. Rows are changed and the term is raised in one transaction:
 * the owner, whoever it is, sees that within a second and takes the lane again. On HTTP's thread
 * for searches: they read of Kafka what they must, and wait
 * for it at most half a minute. Used by http.c alone. */
#ifndef SAGA_COMMAND_H
#define SAGA_COMMAND_H

#include "http.h"

extern const struct saga_route saga_command_routes[]; /* up to {0} */

/* Before the thread starts. All live as long as the process. */
void saga_command_init(const struct saga_conf *conf, const struct saga_service *service,
                       const struct saga_view *view);

#endif
