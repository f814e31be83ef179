/* The small readers, and the writer of strings: ids, names, traceparents, times. What one of them
 * takes is written back as the same; what the writer makes of any bytes is JSON. */
#include <string.h>

#include "agree.h"
#include "event_private.h"
#include "fuzz.h"
#include "json.h"
#include "json_bytes.h"

static void id(const char *s, size_t n)
{
    int32_t lane;
    struct saga_id read;
    char out[SAGA_ID_TEXT];
    if (!saga_id_read(s, n, &lane, &read))
        return;
    int length = saga_id_write(lane, read, out);
    MUST((size_t)length == n && memcmp(out, s, n) == 0, "%s", out);
    MUST(lane >= 0 && read.seq > 0 && read.term >= 0, "%s", out);
}

static void name(const char *s, size_t n)
{
    if (!saga_name_ok(s, n) && !event_trace_ok(s, n))
        return;
    MUST(n >= 1 && n <= 64, "%zu bytes", n);
    for (size_t i = 0; i < n; i++)
        MUST(s[i] > ' ' && s[i] < 127 && s[i] != '"' && s[i] != '\\', "byte %zu is %d", i, s[i]);
}

static void moment(const char *s, size_t n)
{
    int64_t us, again;
    struct saga_buf out = {0};
    if (!saga_time_read(s, n, &us))
        return;
    saga_json_put_time(&out, us, 6);
    MUST(saga_time_read(out.at + 1, out.n - 2, &again) && again == us, "%lld us: %.*s",
         (long long)us, (int)out.n, out.at);
    saga_buf_free(&out);
}

static void quoted(const char *s, size_t n)
{
    struct saga_buf out = {0};
    struct saga_json j;
    const char *read;
    size_t read_n;
    saga_json_put_textn(&out, s, n);
    MUST(agree(out.at, out.n), "not JSON: %.*s", (int)out.n, out.at);
    saga_json_init(&j, out.at, out.n, &fuzz_arena, NULL);
    MUST(saga_json_text(&j, &read, &read_n) && json_utf8_ok(read, read_n), "%.*s", (int)out.n,
         out.at);
    if (json_utf8_ok(s, n))
        MUST(read_n == n && memcmp(read, s, n) == 0, "%s is not %.*s", read, (int)n, s);
    saga_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *s = fuzz_copy(data, n);
    id(s, n);
    name(s, n);
    moment(s, n);
    quoted(s, n);
    fuzz_clean();
    return 0;
}
