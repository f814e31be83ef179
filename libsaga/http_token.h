/* The bearer token (RFC 6750) that clients must know, from a file that may change while we run. Used
 * by the HTTP thread alone. */
#ifndef SAGA_HTTP_TOKEN_H
#define SAGA_HTTP_TOKEN_H

#include <stdbool.h>

#include "err.h"

/* file: HTTP_TOKEN_FILE, or "": nobody needs one. -> 0, SAGA_FATAL: not a token, or not a secret */
int saga_token_init(const char *file, struct saga_err *err);
/* Reads the file again if it has changed, or if told to. A file that is not right changes nothing,
 * and is logged. */
void saga_token_renew(bool now);

bool saga_token_needed(void);
/* authorization: the header, or NULL. The time it takes says nothing about the token. */
bool saga_token_fits(const char *authorization);

#endif
