#include "image.h"

#include "error.h"
#include "exif.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

static const int64_t default_max_pixels = (int64_t)64 << 20;
static const size_t file_limit = (size_t)1 << 30;

featinv_status fi_image_check(featinv_image *out, const featinv_image *image) {
    if (!image || !image->pixels)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the image has no pixels");
    if (image->width < 1 || image->height < 1)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the image is %d x %d pixels", (int)image->width,
                       (int)image->height);
    *out = *image;
    if (out->row_bytes == 0)
        out->row_bytes = 3 * (int64_t)out->width;
    if (out->row_bytes < 3 * (int64_t)out->width ||
        out->row_bytes > (int64_t)PTRDIFF_MAX / out->height)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "row_bytes %lld do not fit %d pixels",
                       (long long)image->row_bytes, (int)out->width);
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- reading -------------------- */

static featinv_status read_header(fi_image_header *out, const fi_encoded *file, bool *png) {
    *png = fi_png_magic(file);
    if (*png)
        return fi_png_header(out, file);
    if (fi_jpeg_magic(file))
        return fi_jpeg_header(out, file);
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: %s", file->path,
                   file->size == 0 ? "is empty" : "is neither PNG nor JPEG");
}

static featinv_status decode(uint8_t *pixels, size_t bytes, const fi_encoded *file,
                             const fi_image_header *header, bool png) {
    bool turn = header->orientation > 1;
    uint8_t *stored = pixels;
    if (turn) {
        stored = malloc(bytes);
        if (!stored)
            return fi_fail_memory(bytes);
    }
    featinv_status status =
        png ? fi_png_decode(stored, file, header) : fi_jpeg_decode(stored, file, header);
    if (!status && turn)
        fi_orient(pixels, stored, header->width, header->height, header->orientation);
    if (turn)
        free(stored);
    return status;
}

featinv_status featinv_image_read(uint8_t *pixels, size_t capacity, int32_t *width, int32_t *height,
                                  const char *path, int64_t max_pixels) {
    if (!path || !width || !height || max_pixels < 0)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "path, width or height is NULL, or max_pixels %lld",
                       (long long)max_pixels);
    uint8_t *bytes = NULL;
    bool png = false;
    fi_encoded file = {NULL, 0, path};
    fi_image_header header = {0, 0, 1};
    featinv_status status = fi_file_read(&bytes, &file.size, path, file_limit);
    file.bytes = bytes;
    if (!status)
        status = read_header(&header, &file, &png);
    if (status)
        goto done;

    int64_t most = max_pixels ? max_pixels : default_max_pixels;
    if ((int64_t)header.width > most / (int64_t)header.height ||
        (uint64_t)header.width * header.height > SIZE_MAX / 3) {
        status = fi_fail(FEATINV_ERROR_LIMIT, "%s: %u x %u pixels, at most %lld are read", path,
                         (unsigned)header.width, (unsigned)header.height, (long long)most);
        goto done;
    }
    size_t needed = (size_t)header.width * header.height * 3;
    bool swaps = fi_orientation_swaps(header.orientation);
    *width = (int32_t)(swaps ? header.height : header.width);
    *height = (int32_t)(swaps ? header.width : header.height);
    if (pixels && capacity < needed)
        status = fi_fail(FEATINV_ERROR_CAPACITY, "%s: needs %zu bytes, the buffer has %zu", path,
                         needed, capacity);
    else if (pixels)
        status = decode(pixels, needed, &file, &header, png);
done:
    free(bytes);
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

featinv_status featinv_image_write(const char *path, const featinv_image *image) {
    featinv_image checked;
    if (!path)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "the path of the image to write is NULL");
    featinv_status status = fi_image_check(&checked, image);
    if (status)
        return status;
    if (fi_path_has_suffix(path, ".png"))
        return fi_png_write(path, &checked);
    if (fi_path_has_suffix(path, ".jpg") || fi_path_has_suffix(path, ".jpeg"))
        return fi_jpeg_write(path, &checked);
    return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: ends neither in .png nor in .jpg or .jpeg", path);
}
