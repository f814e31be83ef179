/* The listening socket of the HTTP server. Called once at start by http.c. */
#ifndef SAGA_LISTEN_H
#define SAGA_LISTEN_H

#include "err.h"

/* Binds "address:port" (port 0: any free one) and listens. *port: the one bound. -> the socket, which
 * the caller closes, or SAGA_FATAL: a busy port's holder is named where /proc shows it. */
int saga_listen(const char *address, int *port, struct saga_err *err);

#endif
