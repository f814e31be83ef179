/* What the fuzz targets share. A target is fuzz_<name>.c: it reads an input as a service would, and
 * fails (MUST) not only where something crashes but where what was read is not what the contract
 * says. Its seeds are in seed/<name>/. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "event.h"
#include "test.h"

/* libFuzzer calls it with one input after the other. -> 0 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* For whatever is read from one input. Emptied, block by block, so that what is used after it is
 * seen. */
extern struct saga_arena fuzz_arena;
void fuzz_clean(void);

/* A copy of exactly n bytes, so that reading beyond its end is seen. Lives until fuzz_clean(). */
char *fuzz_copy(const void *data, size_t n);

/* Lines "name: value" up to an empty one, then the body. A line without ": " is a null header. */
enum { FUZZ_HEADERS = 32 };
struct fuzz_form {
    struct saga_header header[FUZZ_HEADERS];
    int headers;
    const char *body;
    size_t n;
};
void fuzz_form(const uint8_t *data, size_t n, struct fuzz_form *form);

/* Every value of in is within the limits of its field, which are written out here a second time. */
void fuzz_within(const struct saga_field *fields, const void *in);

/* err is what a refused reading must leave: SAGA_POISON and a text in UTF-8 that begins with a
 * place: a member that some event, request or envelope has ("data.lines[0].sku: ..."), a byte
 * ("byte 7: ..."), or the size of it all. */
void fuzz_refused(const struct saga_err *err);

#endif
