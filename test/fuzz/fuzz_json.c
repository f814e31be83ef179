/* The pull reader against jansson: the same verdict, the same values. */
#include "agree.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    agree((const char *)data, n);
    return 0;
}
