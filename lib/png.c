#include "image.h"

#include "bytes.h"
#include "error.h"
#include "exif.h"
#include "file.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

/* One run of libpng: where it reads from or writes to, and what it said before it jumped out. */
typedef struct session {
    const fi_encoded *file;
    size_t at;
    const fi_image_header *header;
    uint8_t *pixels;
    fi_writer *writer;
    const featinv_image *image;
    png_structp png;
    png_infop info;
    char text[128];
} session;

static void on_error(png_structp png, png_const_charp text) {
    session *s = png_get_error_ptr(png);
    (void)snprintf(s->text, sizeof s->text, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    (void)png; /* what libpng only warns about does not change pixels */
    (void)text;
}

/* Runs work, out of which libpng jumps on errors: false then. The session is not local to the
 * function that calls setjmp, so that its fields are defined after the jump. */
static bool run(session *s, void (*work)(session *s)) {
    if (setjmp(png_jmpbuf(s->png)))
        return false;
    work(s);
    return true;
}

/* ---------------------------------------------------------------- reading -------------------- */

bool fi_png_magic(const fi_encoded *file) {
    return file->size >= sizeof magic && memcmp(file->bytes, magic, sizeof magic) == 0;
}

static void on_read(png_structp png, png_bytep bytes, size_t size) {
    session *s = png_get_io_ptr(png);
    if (size > s->file->size - s->at)
        png_error(png, "the file is truncated");
    memcpy(bytes, s->file->bytes + s->at, size);
    s->at += size;
}

/* Chunks that say nothing about pixels, or (gamma, ICC) are ignored as Pillow ignores them: they
 * are skipped unread, which also disarms compressed ones. Their CRC is checked still. */
static const png_byte skipped[] =
    "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0"
    "sCAL\0sPLT\0sRGB\0sTER\0tEXt\0tIME\0zTXt";

static featinv_status begin_read(session *s, const fi_encoded *file) {
    memset(s, 0, sizeof *s);
    s->file = file;
    s->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, s, on_error, on_warning);
    if (s->png)
        s->info = png_create_info_struct(s->png);
    if (!s->info) {
        png_destroy_read_struct(&s->png, &s->info, NULL);
        return fi_fail_memory(sizeof *s);
    }
    return FEATINV_OK;
}

/* Jumps out on damage. */
static void read_info(session *s) {
    png_set_read_fn(s->png, s, on_read);
    png_set_crc_action(s->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(s->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* the caller limits pixels */
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, skipped, (int)(sizeof skipped / 5));
    png_read_info(s->png, s->info);
}

static featinv_status damaged(const session *s) {
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: damaged PNG: %s", s->file->path, s->text);
}

/* Orientation: an eXIf chunk, else an XMP packet, anywhere in the file. */
static int find_orientation(const fi_encoded *file) {
    static const char packet[] = "XML:com.adobe.xmp\0\0"; /* key, not compressed */
    int exif = 0, xmp = 0;
    size_t at = sizeof magic;
    while (file->size - at >= 12) {
        const uint8_t *chunk = file->bytes + at;
        size_t length = fi_be32(chunk);
        if (length > file->size - at - 12)
            break;
        if (memcmp(chunk + 4, "eXIf", 4) == 0)
            exif = fi_exif_orientation(chunk + 8, length);
        if (memcmp(chunk + 4, "iTXt", 4) == 0 && length >= sizeof packet &&
            memcmp(chunk + 8, packet, sizeof packet - 1) == 0)
            xmp = fi_xmp_orientation(chunk + 8, length);
        at += length + 12;
    }
    int found = exif ? exif : xmp;
    return found ? found : 1;
}

/* Deflate cannot make more than 1032 bytes out of one (zlib's documentation): what a file of so
 * many bytes can hold bounds the pixels before anybody allocates them. */
static bool plausible(const session *s) {
    uint64_t pixels =
        (uint64_t)png_get_image_width(s->png, s->info) * png_get_image_height(s->png, s->info);
    uint64_t bits =
        (uint64_t)png_get_channels(s->png, s->info) * png_get_bit_depth(s->png, s->info);
    return pixels / 8 / 1032 * bits <= s->file->size;
}

featinv_status fi_png_header(fi_image_header *out, const fi_encoded *file) {
    session s;
    featinv_status status = begin_read(&s, file);
    if (status)
        return status;
    if (!run(&s, read_info)) {
        status = damaged(&s);
    } else {
        out->width = png_get_image_width(s.png, s.info);
        out->height = png_get_image_height(s.png, s.info);
        out->orientation = find_orientation(file);
        if (!plausible(&s))
            status = fi_fail(FEATINV_ERROR_FORMAT,
                             "%s: damaged PNG: %zu bytes cannot hold %u x %u pixels", file->path,
                             file->size, (unsigned)out->width, (unsigned)out->height);
    }
    png_destroy_read_struct(&s.png, &s.info, NULL);
    return status;
}

/* Everything becomes 8-bit RGB the way Pillow's convert("RGB") does it, with one exception: Pillow
 * clips 16-bit grey at 255, so that nearly all of such a picture turns white; here every 16-bit
 * sample is its high byte, which is what Pillow does for 16-bit grey with alpha and colour. */
static void set_transforms(session *s) {
    png_byte type = png_get_color_type(s->png, s->info);
    png_set_strip_16(s->png);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(s->png);
    else if (!(type & PNG_COLOR_MASK_COLOR))
        png_set_expand_gray_1_2_4_to_8(s->png);
    png_set_gray_to_rgb(s->png);
    png_set_strip_alpha(s->png);
}

/* Jumps out on damage. */
static void read_rows(session *s) {
    read_info(s);
    set_transforms(s);
    int passes = png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->info);
    size_t row_bytes = 3 * (size_t)s->header->width;
    if (png_get_rowbytes(s->png, s->info) != row_bytes)
        png_error(s->png, "its rows have an unexpected size");
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < s->header->height; y++)
            png_read_row(s->png, s->pixels + y * row_bytes, NULL);
    png_read_end(s->png, NULL);
}

featinv_status fi_png_decode(uint8_t *pixels, const fi_encoded *file,
                             const fi_image_header *header) {
    session s;
    featinv_status status = begin_read(&s, file);
    if (status)
        return status;
    s.pixels = pixels;
    s.header = header;
    if (!run(&s, read_rows))
        status = damaged(&s);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

static void on_write(png_structp png, png_bytep bytes, size_t size) {
    session *s = png_get_io_ptr(png);
    fi_writer_write(s->writer, bytes, size);
}

static void on_flush(png_structp png) {
    (void)png;
}

/* Jumps out when memory is short. */
static void write_rows(session *s) {
    const featinv_image *image = s->image;
    png_set_write_fn(s->png, s, on_write, on_flush);
    png_set_user_limits(s->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_IHDR(s->png, s->info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(s->png, s->info);
    for (int32_t y = 0; y < image->height; y++)
        png_write_row(s->png, image->pixels + y * image->row_bytes);
    png_write_end(s->png, NULL);
}

featinv_status fi_png_write(const char *path, const featinv_image *image) {
    session s;
    memset(&s, 0, sizeof s);
    s.image = image;
    featinv_status status = fi_writer_open(&s.writer, path);
    if (status)
        return status;
    s.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    if (s.png)
        s.info = png_create_info_struct(s.png);
    if (!s.info)
        status = fi_fail_memory(sizeof s);
    else if (!run(&s, write_rows))
        status = fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path, s.text);
    png_destroy_write_struct(&s.png, &s.info);
    if (!status)
        return fi_writer_commit(s.writer);
    fi_writer_abort(s.writer);
    return status;
}
