/* The routes by which people see parked orders and decide about them (DESIGN.md 4.7), in every
 * service: GET /parked, GET /parked/{id}, POST /parked/{id}/redrive, POST /parked/{id}/drop. Used by
 * http.c alone. They only read table parked and set marks; the owner of the lane does the rest,
 * whichever process was asked. */
#ifndef SAGA_PARK_HTTP_H
#define SAGA_PARK_HTTP_H

#include "http.h"

extern const struct saga_route saga_park_routes[]; /* up to {0} */

#endif
