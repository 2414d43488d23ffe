#include "featinv.h"

#include <stdio.h> /* jpeglib.h wants it first */

#include <jansson.h>
#include <jpeglib.h>
#include <openssl/opensslv.h>
#include <png.h>
#include <zlib.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const char *featinv_version(void) {
    return TEXT(FEATINV_VERSION_MAJOR) "." TEXT(FEATINV_VERSION_MINOR) "." TEXT(
        FEATINV_VERSION_PATCH);
}

const char *featinv_build_info(void) {
    return "libfeatinv " TEXT(FEATINV_VERSION_MAJOR) "." TEXT(FEATINV_VERSION_MINOR) "." TEXT(
        FEATINV_VERSION_PATCH) ", compiler " __VERSION__
#ifdef LIBJPEG_TURBO_VERSION
                               ", libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION)
#endif
                                   ", libpng " PNG_LIBPNG_VER_STRING ", zlib " ZLIB_VERSION
                                   ", jansson " JANSSON_VERSION ", " OPENSSL_VERSION_TEXT;
}
