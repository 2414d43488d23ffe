#include "hash.h"

#include "error.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fi_hash {
    EVP_MD_CTX *context;
    int good;
};

featinv_status fi_hash_create(fi_hash **out) {
    fi_hash *hash = malloc(sizeof *hash);
    if (!hash)
        return fi_fail_memory(sizeof *hash);
    hash->context = EVP_MD_CTX_new();
    hash->good = hash->context && EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) == 1;
    if (!hash->good) {
        fi_hash_destroy(hash);
        return fi_fail(FEATINV_ERROR_MEMORY, "no SHA-256 from OpenSSL");
    }
    *out = hash;
    return FEATINV_OK;
}

void fi_hash_update(fi_hash *hash, const void *bytes, size_t size) {
    hash->good = hash->good && EVP_DigestUpdate(hash->context, bytes, size) == 1;
}

void fi_hash_finish(char text[FI_HASH_TEXT], fi_hash *hash) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    text[0] = '\0';
    if (hash->good && EVP_DigestFinal_ex(hash->context, digest, &length) == 1 && length == 32)
        for (unsigned int i = 0; i < length; i++)
            (void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
    fi_hash_destroy(hash);
}

void fi_hash_destroy(fi_hash *hash) {
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

featinv_status fi_hash_bytes(char text[FI_HASH_TEXT], const void *bytes, size_t size) {
    fi_hash *hash = NULL;
    featinv_status status = fi_hash_create(&hash);
    if (status)
        return status;
    fi_hash_update(hash, bytes, size);
    fi_hash_finish(text, hash);
    return FEATINV_OK;
}

featinv_status fi_hash_file(char text[FI_HASH_TEXT], const char *path) {
    enum { BLOCK = 1 << 20 };
    fi_hash *hash = NULL;
    FILE *file = NULL;
    uint8_t *block = malloc(BLOCK);
    featinv_status status = block ? fi_hash_create(&hash) : fi_fail_memory(BLOCK);
    if (status)
        goto done;
    file = fopen(path, "rbe");
    if (!file) {
        status = fi_fail(errno == ENOENT ? FEATINV_ERROR_NOT_FOUND : FEATINV_ERROR_READ, "%s: %s",
                         path, strerror(errno));
        goto done;
    }
    for (size_t n; (n = fread(block, 1, BLOCK, file)) > 0;)
        fi_hash_update(hash, block, n);
    if (ferror(file)) {
        status = fi_fail(FEATINV_ERROR_READ, "%s: %s", path, strerror(errno));
        goto done;
    }
    fi_hash_finish(text, hash);
    hash = NULL;
done:
    if (file)
        (void)fclose(file);
    fi_hash_destroy(hash);
    free(block);
    return status;
}
