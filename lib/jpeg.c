#include "image.h"

#include "error.h"
#include "exif.h"
#include "file.h"

#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* Real progressive files have about ten scans; libjpeg-turbo's own fuzzers stop here. */
enum { SCANS_LIMIT = 500 };

/* One run of libjpeg. The managers come first, so that its callbacks find the rest. */
typedef struct session {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char text[JMSG_LENGTH_MAX];
    union {
        struct jpeg_common_struct common;
        struct jpeg_decompress_struct in;
        struct jpeg_compress_struct out;
    } jpeg;
    const fi_encoded *file;
    const fi_image_header *header;
    uint8_t *pixels;
    uint8_t *row; /* one row of CMYK */
    const featinv_image *image;
    struct jpeg_destination_mgr destination;
    fi_writer *writer;
    uint8_t buffer[1 << 14];
} session;

static void on_error(j_common_ptr jpeg) {
    session *s = (session *)(void *)jpeg->err;
    jpeg->err->format_message(jpeg, s->text);
    longjmp(s->escape, 1);
}

/* Warnings about pixel data mean that some of the picture is missing or invented. */
static void on_message(j_common_ptr jpeg, int level) {
    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_ARITH_BAD_CODE:
        on_error(jpeg);
        break;
    default:
        break;
    }
}

static void on_output(j_common_ptr jpeg) {
    (void)jpeg;
}

/* Each scan of a progressive file costs time for the whole picture, however short it is. */
static void on_progress(j_common_ptr jpeg) {
    session *s = (session *)(void *)jpeg->err;
    if (jpeg->is_decompressor && s->jpeg.in.input_scan_number > SCANS_LIMIT) {
        (void)snprintf(s->text, sizeof s->text, "more than %d scans", SCANS_LIMIT);
        longjmp(s->escape, 1);
    }
}

/* Runs work, out of which libjpeg jumps on errors: false then. The session is not local to the
 * function that calls setjmp, so that its fields are defined after the jump. */
static bool run(session *s, void (*work)(session *s)) {
    if (setjmp(s->escape))
        return false;
    work(s);
    return true;
}

static void begin(session *s) {
    memset(s, 0, sizeof *s);
    s->jpeg.common.err = jpeg_std_error(&s->errors);
    s->errors.error_exit = on_error;
    s->errors.emit_message = on_message;
    s->errors.output_message = on_output;
    s->progress.progress_monitor = on_progress;
}

/* ---------------------------------------------------------------- reading -------------------- */

bool fi_jpeg_magic(const fi_encoded *file) {
    return file->size >= 3 && memcmp(file->bytes, "\xff\xd8\xff", 3) == 0;
}

static void read_header(session *s) {
    struct jpeg_decompress_struct *in = &s->jpeg.in;
    jpeg_create_decompress(in);
    in->progress = &s->progress;
    jpeg_mem_src(in, s->file->bytes, (unsigned long)s->file->size);
    jpeg_save_markers(in, JPEG_APP0 + 1, 0xffff);
    (void)jpeg_read_header(in, TRUE);
    if (in->num_components != 1 && in->num_components != 3 && in->num_components != 4) {
        (void)snprintf(s->text, sizeof s->text, "it has %d components", in->num_components);
        longjmp(s->escape, 1);
    }
}

static int find_orientation(const struct jpeg_decompress_struct *in) {
    static const char xmp_name[] = "http://ns.adobe.com/xap/1.0/";
    int exif = 0, xmp = 0;
    for (jpeg_saved_marker_ptr m = in->marker_list; m; m = m->next) {
        if (exif == 0 && m->data_length >= 6 && memcmp(m->data, "Exif\0", 6) == 0)
            exif = fi_exif_orientation(m->data, m->data_length);
        if (m->data_length >= sizeof xmp_name && memcmp(m->data, xmp_name, sizeof xmp_name) == 0)
            xmp = fi_xmp_orientation(m->data, m->data_length);
    }
    int found = exif ? exif : xmp;
    return found ? found : 1;
}

static featinv_status finish_read(session *s, bool ok) {
    jpeg_destroy_decompress(&s->jpeg.in);
    if (ok)
        return FEATINV_OK;
    if (s->errors.msg_code == JERR_OUT_OF_MEMORY)
        return fi_fail(FEATINV_ERROR_MEMORY, "%s: out of memory", s->file->path);
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: damaged or unsupported JPEG: %s", s->file->path,
                   s->text);
}

featinv_status fi_jpeg_header(fi_image_header *out, const fi_encoded *file) {
    session s;
    begin(&s);
    s.file = file;
    bool ok = run(&s, read_header);
    if (ok) {
        out->width = s.jpeg.in.image_width;
        out->height = s.jpeg.in.image_height;
        out->orientation = find_orientation(&s.jpeg.in);
    }
    return finish_read(&s, ok);
}

/* a * b / 255, rounded, as Pillow's MULDIV255 computes it. */
static unsigned scale255(unsigned a, unsigned b) {
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* CMYK files hold inverted ink (Adobe's convention, which Pillow takes for granted): 255 is none.
 */
static void from_cmyk(uint8_t *rgb, const uint8_t *cmyk, uint32_t width) {
    for (uint32_t x = 0; x < width; x++, rgb += 3, cmyk += 4) {
        unsigned white = cmyk[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(white - scale255(255u - cmyk[c], white));
    }
}

static void read_rows(session *s) {
    struct jpeg_decompress_struct *in = &s->jpeg.in;
    read_header(s);
    in->out_color_space = in->num_components == 4 ? JCS_CMYK : JCS_RGB;
    (void)jpeg_start_decompress(in);
    size_t row_bytes = 3 * (size_t)s->header->width;
    while (in->output_scanline < in->output_height) {
        uint8_t *rgb = s->pixels + in->output_scanline * row_bytes;
        JSAMPROW row = in->num_components == 4 ? s->row : rgb;
        if (jpeg_read_scanlines(in, &row, 1) != 1)
            ERREXIT(in, JERR_CANT_SUSPEND);
        if (in->num_components == 4)
            from_cmyk(rgb, s->row, s->header->width);
    }
    (void)jpeg_finish_decompress(in);
}

featinv_status fi_jpeg_decode(uint8_t *pixels, const fi_encoded *file,
                              const fi_image_header *header) {
    session s;
    begin(&s);
    s.file = file;
    s.header = header;
    s.pixels = pixels;
    s.row = malloc(4 * (size_t)header->width);
    if (!s.row)
        return fi_fail_memory(4 * (size_t)header->width);
    featinv_status status = finish_read(&s, run(&s, read_rows));
    free(s.row);
    return status;
}

/* ---------------------------------------------------------------- writing -------------------- */

static void start_buffer(j_compress_ptr out) {
    session *s = (session *)(void *)out->err;
    s->destination.next_output_byte = s->buffer;
    s->destination.free_in_buffer = sizeof s->buffer;
}

static boolean flush_buffer(j_compress_ptr out) {
    session *s = (session *)(void *)out->err;
    fi_writer_write(s->writer, s->buffer, sizeof s->buffer);
    start_buffer(out);
    return TRUE;
}

static void end_buffer(j_compress_ptr out) {
    session *s = (session *)(void *)out->err;
    fi_writer_write(s->writer, s->buffer, sizeof s->buffer - s->destination.free_in_buffer);
}

static void write_rows(session *s) {
    struct jpeg_compress_struct *out = &s->jpeg.out;
    jpeg_create_compress(out);
    s->destination.init_destination = start_buffer;
    s->destination.empty_output_buffer = flush_buffer;
    s->destination.term_destination = end_buffer;
    out->dest = &s->destination;
    out->image_width = (JDIMENSION)s->image->width;
    out->image_height = (JDIMENSION)s->image->height;
    out->input_components = 3;
    out->in_color_space = JCS_RGB;
    jpeg_set_defaults(out);
    jpeg_set_quality(out, 95, TRUE);
    out->comp_info[0].h_samp_factor = 1; /* colour at full resolution */
    out->comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(out, TRUE);
    for (int32_t y = 0; y < s->image->height; y++) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(s->image->pixels + y * s->image->row_bytes);
        (void)jpeg_write_scanlines(out, &row, 1); /* reads only, its type lacks the const */
    }
    jpeg_finish_compress(out);
}

featinv_status fi_jpeg_write(const char *path, const featinv_image *image) {
    session s;
    if (image->width > JPEG_MAX_DIMENSION || image->height > JPEG_MAX_DIMENSION)
        return fi_fail(FEATINV_ERROR_ARGUMENT, "%s: JPEG holds at most %ld pixels a side", path,
                       (long)JPEG_MAX_DIMENSION);
    begin(&s);
    s.image = image;
    featinv_status status = fi_writer_open(&s.writer, path);
    if (status)
        return status;
    bool ok = run(&s, write_rows);
    jpeg_destroy_compress(&s.jpeg.out);
    if (ok)
        return fi_writer_commit(s.writer);
    fi_writer_abort(s.writer);
    return fi_fail(FEATINV_ERROR_WRITE, "%s: cannot be written (%s)", path, s.text);
}
