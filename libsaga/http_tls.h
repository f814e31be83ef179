/* The certificate of HTTPS, from files that may change while we run: who connects from then on gets
 * the new one. Used by the HTTP thread alone. */
#ifndef SAGA_HTTP_TLS_H
#define SAGA_HTTP_TLS_H

#include <stdbool.h>

#include "err.h"

/* HTTP_TLS_CERT and HTTP_TLS_KEY: both, or both "": no TLS. -> 0, SAGA_FATAL: which file is wrong */
int saga_tls_init(const char *cert, const char *key, struct saga_err *err);
/* Reads the files again if they have changed, or if told to. Files that are not right change nothing,
 * and are logged. */
void saga_tls_renew(bool now);

struct MHD_OptionItem;
const struct MHD_OptionItem *saga_tls_options(void); /* NULL: no TLS */

#endif
