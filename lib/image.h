/* Decoders and encoders behind featinv_image_read and _write. */
#ifndef FI_IMAGE_H
#define FI_IMAGE_H

#include "featinv.h"

#include <stdbool.h>

/* The bytes of an image file and its name for error texts. */
typedef struct fi_encoded {
    const uint8_t *bytes;
    size_t size;
    const char *path;
} fi_encoded;

/* What a header says: stored size and EXIF orientation (1 to 8, 1: as it is). */
typedef struct fi_image_header {
    uint32_t width, height;
    int orientation;
} fi_image_header;

bool fi_png_magic(const fi_encoded *file);
bool fi_jpeg_magic(const fi_encoded *file);

/* Reads the header only: no memory that depends on the declared size. Errors: FORMAT, MEMORY. */
featinv_status fi_png_header(fi_image_header *out, const fi_encoded *file);
featinv_status fi_jpeg_header(fi_image_header *out, const fi_encoded *file);

/* Decodes into packed RGB of the header's size, orientation not applied. Errors: FORMAT, MEMORY. */
featinv_status fi_png_decode(uint8_t *pixels, const fi_encoded *file,
                             const fi_image_header *header);
featinv_status fi_jpeg_decode(uint8_t *pixels, const fi_encoded *file,
                              const fi_image_header *header);

/* Writes atomically; row_bytes is set. */
featinv_status fi_png_write(const char *path, const featinv_image *image);
featinv_status fi_jpeg_write(const char *path, const featinv_image *image);

/* A checked image with row_bytes filled in. Errors: ARGUMENT. */
featinv_status fi_image_check(featinv_image *out, const featinv_image *image);

#endif
