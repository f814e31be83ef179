/* The certificate of HTTPS. See http_tls.h. The only caller of GnuTLS, which libmicrohttpd uses. */
#include "http_tls.h"

#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#include "http_file.h"
#include "log.h"
#include "mem.h"

enum { CHAIN_MAX = 8, FILE_MAX = 64 * 1024, KEY_ID = 64 };

/* A handshake that goes on uses the one that it began with: none is freed. They are a few KB, and
 * some a year. */
struct identity {
    struct identity *older;
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned n;
    gnutls_privkey_t key;
};

static struct saga_file cert_file, key_file;
static struct identity *identity, *newest;

static int retrieve(gnutls_session_t session, const gnutls_datum_t *authorities, int n,
                    const gnutls_pk_algorithm_t *algorithms, int algorithms_n,
                    gnutls_pcert_st **chain, unsigned *chain_n, gnutls_privkey_t *key)
{
    (void)session, (void)authorities, (void)n, (void)algorithms, (void)algorithms_n;
    *chain = identity->chain;
    *chain_n = identity->n;
    *key = identity->key;
    return 0;
}

const struct MHD_OptionItem *saga_tls_options(void)
{
    static gnutls_certificate_retrieve_function2 *const certificate = retrieve;
    static struct MHD_OptionItem options[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    memcpy(&options[0].ptr_value, &certificate, sizeof certificate); /* a function is no object */
    return identity ? options : NULL;
}

/* ---- Reading ---- */

static int refuse(const struct saga_file *file, int rc, struct saga_err *err)
{
    return saga_err(err, SAGA_FATAL, "%s=%.120s: %s", file->variable, file->path,
                    gnutls_strerror(rc));
}

static bool belong_together(const struct identity *id)
{
    unsigned char one[KEY_ID], other[KEY_ID];
    size_t n = sizeof one, m = sizeof other;
    gnutls_pubkey_t public;
    if (gnutls_pubkey_init(&public) < 0)
        return false;
    bool same = gnutls_pubkey_import_privkey(public, id->key, 0, 0) >= 0 &&
                gnutls_pubkey_get_key_id(public, 0, one, &n) >= 0 &&
                gnutls_pubkey_get_key_id(id->chain[0].pubkey, 0, other, &m) >= 0 && n == m &&
                memcmp(one, other, n) == 0;
    gnutls_pubkey_deinit(public);
    return same;
}

static int parse(struct identity *id, const gnutls_datum_t *cert, const gnutls_datum_t *key,
                 struct saga_err *err)
{
    int rc;
    id->n = CHAIN_MAX;
    if ((rc = gnutls_pcert_list_import_x509_raw(id->chain, &id->n, cert, GNUTLS_X509_FMT_PEM, 0)) <
        0) {
        id->n = 0;
        return refuse(&cert_file, rc, err);
    }
    if ((rc = gnutls_privkey_init(&id->key)) < 0 ||
        (rc = gnutls_privkey_import_x509_raw(id->key, key, GNUTLS_X509_FMT_PEM, NULL, 0)) < 0)
        return refuse(&key_file, rc, err);
    if (!belong_together(id))
        return saga_err(err, SAGA_FATAL, "HTTP_TLS_KEY=%.80s: not the key of HTTP_TLS_CERT=%.80s",
                        key_file.path, cert_file.path);
    return 0;
}

static void identity_free(struct identity *id)
{
    for (unsigned i = 0; i < id->n; i++)
        gnutls_pcert_deinit(&id->chain[i]);
    if (id->key)
        gnutls_privkey_deinit(id->key);
    free(id);
}

static int read_files(struct saga_err *err)
{
    char *cert = NULL, *key = NULL;
    size_t cert_n = 0, key_n = 0;
    struct identity *id = saga_alloc(sizeof *id);
    memset(id, 0, sizeof *id);
    int rc = saga_file_read(&cert_file, FILE_MAX, false, &cert, &cert_n, err);
    if (rc == 0)
        rc = saga_file_read(&key_file, FILE_MAX, true, &key, &key_n, err);
    if (rc == 0)
        rc = parse(id, &(gnutls_datum_t){(unsigned char *)cert, (unsigned)cert_n},
                   &(gnutls_datum_t){(unsigned char *)key, (unsigned)key_n}, err);
    if (rc == 0) {
        id->older = newest;
        identity = newest = id;
    } else {
        identity_free(id);
    }
    if (key)
        explicit_bzero(key, key_n);
    free(cert);
    free(key);
    return rc;
}

int saga_tls_init(const char *cert, const char *key, struct saga_err *err)
{
    cert_file = (struct saga_file){.variable = "HTTP_TLS_CERT", .path = cert};
    key_file = (struct saga_file){.variable = "HTTP_TLS_KEY", .path = key};
    identity = NULL;
    bool has_cert = cert && *cert, has_key = key && *key;
    if (!has_cert && !has_key)
        return 0;
    if (!has_cert || !has_key)
        return saga_err(err, SAGA_FATAL,
                        "HTTP_TLS_CERT, HTTP_TLS_KEY: only one of them is set, TLS needs both");
    return read_files(err);
}

void saga_tls_renew(bool now)
{
    struct saga_err err = {0};
    if (!identity || !(now || saga_file_changed(&cert_file) || saga_file_changed(&key_file)))
        return;
    if (read_files(&err) < 0)
        saga_log_text(SAGA_ERROR, "the certificate stays as it was", err.text);
    else
        saga_log_text(SAGA_INFO, "the certificate is read again", cert_file.path);
}
