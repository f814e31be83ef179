/* Parameters of PostgreSQL's statements, in its binary form (its documentation, "Message Formats", and the
 * receive functions of its types). See pg.h. */
#include "pg.h"

#include <arpa/inet.h>
#include <endian.h>
#include <stdlib.h>

#include "field.h"

static void put32(struct saga_buf *b, uint32_t v)
{
    v = htonl(v);
    saga_buf_add(b, &v, 4);
}

static void put64(struct saga_buf *b, int64_t v)
{
    uint64_t n = htobe64((uint64_t)v);

    saga_buf_add(b, &n, 8);
}

void saga_params_reset(struct saga_params *p)
{
    p->n = 0;
    p->bytes.n = 0;
}

void saga_params_free(struct saga_params *p)
{
    saga_buf_free(&p->bytes);
}

static struct saga_param *param(struct saga_params *p, uint32_t oid)
{
    if (p->n == SAGA_PARAMS_MAX)
        abort(); /* a statement of ours with too many parameters */
    p->param[p->n] = (struct saga_param){.oid = oid, .at = p->bytes.n};
    return &p->param[p->n++];
}

static void finish(struct saga_params *p)
{
    struct saga_param *last = &p->param[p->n - 1];

    last->len = (int)(p->bytes.n - last->at);
}

void saga_param_text(struct saga_params *p, const char *s)
{
    param(p, SAGA_OID_TEXT)->len = -1;
    if (!s)
        return;
    saga_buf_str(&p->bytes, s);
    finish(p);
}

void saga_param_int(struct saga_params *p, int64_t v)
{
    param(p, SAGA_OID_INT8);
    put64(&p->bytes, v);
    finish(p);
}

void saga_param_time(struct saga_params *p, int64_t us)
{
    param(p, SAGA_OID_TIMESTAMPTZ);
    put64(&p->bytes, us - SAGA_PG_EPOCH);
    finish(p);
}

void saga_param_bool(struct saga_params *p, bool v)
{
    param(p, SAGA_OID_BOOL);
    saga_buf_add(&p->bytes, v ? "\1" : "\0", 1);
    finish(p);
}

static uint32_t array_of(uint32_t oid)
{
    switch (oid) {
    case SAGA_OID_BOOL:
        return 1000;
    case SAGA_OID_BYTEA:
        return 1001;
    case SAGA_OID_INT4:
        return 1007;
    case SAGA_OID_INT8:
        return 1016;
    case SAGA_OID_TIMESTAMPTZ:
        return 1185;
    case SAGA_OID_JSON:
        return 199;
    default:
        return 1009;
    }
}

/* The binary form of an array (array_send): dimensions, has-null flag, element type, then for each
 * dimension its size and lower bound, then the elements. */
enum { ARRAY_SIZE_AT = 12, ARRAY_EMPTY = 12 };

void saga_param_array(struct saga_params *p, uint32_t element_oid)
{
    param(p, array_of(element_oid));
    put32(&p->bytes, 1);
    put32(&p->bytes, 0);
    put32(&p->bytes, element_oid);
    put32(&p->bytes, 0);
    put32(&p->bytes, 1);
}

static struct saga_buf *element(struct saga_params *p)
{
    p->param[p->n - 1].elements++;
    return &p->bytes;
}

void saga_element_text(struct saga_params *p, const char *s, int64_t n)
{
    struct saga_buf *b = element(p);

    if (!s) {
        put32(b, UINT32_MAX);
        return;
    }
    if (n < 0)
        n = (int64_t)strlen(s);
    put32(b, (uint32_t)n);
    saga_buf_add(b, s, (size_t)n);
}

void saga_element_int(struct saga_params *p, int64_t v)
{
    struct saga_buf *b = element(p);

    put32(b, 8);
    put64(b, v);
}

void saga_element_int4(struct saga_params *p, int32_t v)
{
    struct saga_buf *b = element(p);

    put32(b, 4);
    put32(b, (uint32_t)v);
}

void saga_element_column(struct saga_params *p, const struct saga_field *column, const void *row)
{
    saga_column_write(column, row, element(p));
}

void saga_param_array_end(struct saga_params *p)
{
    struct saga_param *last = &p->param[p->n - 1];
    uint32_t n = htonl((uint32_t)last->elements);

    if (last->elements == 0) {
        memset(p->bytes.at + last->at, 0, 4); /* no dimension */
        p->bytes.n = last->at + ARRAY_EMPTY;
    } else {
        memcpy(p->bytes.at + last->at + ARRAY_SIZE_AT, &n, 4);
    }
    finish(p);
}
