#include "npy.h"

#include "bytes.h"
#include "error.h"
#include "tensor.h"

#include <stdio.h>
#include <string.h>

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* What follows the byte order in a descr. */
static const struct {
    char text[3];
    featinv_dtype dtype;
} descriptions[] = {
    {"f4", FEATINV_DTYPE_F32}, {"f8", FEATINV_DTYPE_F64},  {"f2", FEATINV_DTYPE_F16},
    {"u1", FEATINV_DTYPE_U8},  {"b1", FEATINV_DTYPE_BOOL}, {"i1", FEATINV_DTYPE_I8},
    {"i2", FEATINV_DTYPE_I16}, {"i4", FEATINV_DTYPE_I32},  {"i8", FEATINV_DTYPE_I64},
    {"u2", FEATINV_DTYPE_U16}, {"u4", FEATINV_DTYPE_U32},  {"u8", FEATINV_DTYPE_U64},
};
enum { DESCRIPTIONS = sizeof descriptions / sizeof *descriptions };

bool fi_npy_magic(const uint8_t *bytes, size_t size) {
    return size >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
}

featinv_status fi_npy_prefix(size_t *begin, size_t *end, const uint8_t bytes[FI_NPY_PREFIX],
                             const char *path) {
    if (!fi_npy_magic(bytes, FI_NPY_PREFIX))
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: is not in NumPy's format", path);
    if (bytes[6] < 1 || bytes[6] > 3 || bytes[7] != 0)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npy version %d.%d is not supported", path,
                       bytes[6], bytes[7]);
    bool first = bytes[6] == 1;
    size_t length = first ? fi_le16(bytes + 8) : fi_le32(bytes + 8);
    *begin = first ? 10 : 12;
    if (length > FI_NPY_HEADER_LIMIT)
        return fi_fail(FEATINV_ERROR_LIMIT, "%s: npy header of %zu bytes, at most %d are read",
                       path, length, FI_NPY_HEADER_LIMIT);
    if (length < 16)
        return fi_fail(FEATINV_ERROR_FORMAT, "%s: npy header of %zu bytes", path, length);
    *end = *begin + length;
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- the dict literal ----------- */

typedef struct scanner {
    const char *at, *end;
    const char *path;
} scanner;

static void skip_space(scanner *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool take(scanner *s, char c) {
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool take_word(scanner *s, const char *word) {
    size_t length = strlen(word);
    skip_space(s);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
        return false;
    s->at += length;
    return true;
}

/* A string without escapes, which is all that NumPy writes for the dtypes taken here. */
static bool take_string(scanner *s, char *text, size_t capacity) {
    skip_space(s);
    if (s->at == s->end || (*s->at != '\'' && *s->at != '"'))
        return false;
    char quote = *s->at++;
    size_t used = 0;
    for (; s->at < s->end && *s->at != quote; s->at++) {
        if (used + 1 >= capacity || *s->at == '\\' || (unsigned char)*s->at < 0x20)
            return false;
        text[used++] = *s->at;
    }
    text[used] = 0;
    return take(s, quote);
}

static featinv_status malformed(const scanner *s, const char *what) {
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: npy header: %s", s->path, what);
}

static featinv_status read_dtype(fi_npy *out, scanner *s) {
    char text[32];
    if (!take_string(s, text, sizeof text)) {
        skip_space(s);
        return malformed(s, s->at < s->end && *s->at == '[' ? "structured arrays are not supported"
                                                            : "descr is not a plain dtype");
    }
    const char *kind = text;
    char order = '=';
    if (*kind && strchr("<>=|", *kind))
        order = *kind++;
    for (int i = 0; i < DESCRIPTIONS; i++)
        if (strcmp(kind, descriptions[i].text) == 0) {
            out->dtype = descriptions[i].dtype;
            bool wide = fi_dtype_size(out->dtype) > 1;
            out->swapped = wide && ((order == '>' && !FI_BIG_ENDIAN_HOST) ||
                                    (order == '<' && FI_BIG_ENDIAN_HOST));
            if (wide && order == '|')
                break;
            return FEATINV_OK;
        }
    return fi_fail(FEATINV_ERROR_FORMAT, "%s: dtype '%s' is not supported (%s)", s->path, text,
                   *kind == 'O'                                   ? "object"
                   : *kind == 'c'                                 ? "complex"
                   : *kind == 'U' || *kind == 'S' || *kind == 'a' ? "string"
                   : *kind == 'V'                                 ? "void"
                                                                  : "not a number of a known size");
}

static bool read_bool(bool *value, scanner *s) {
    *value = take_word(s, "True");
    return *value || take_word(s, "False");
}

/* One extent; *ok becomes false for a negative or too large number. */
static bool read_extent(int64_t *extent, scanner *s, bool *ok) {
    bool negative = take(s, '-');
    skip_space(s);
    const char *first = s->at;
    int64_t value = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *s->at - '0', &value))
            *ok = false;
    bool any = s->at > first;
    if (any && s->at < s->end && *s->at == 'L') /* Python 2's long */
        s->at++;
    if (negative)
        *ok = false;
    *extent = value;
    return any;
}

static featinv_status read_shape(fi_npy *out, scanner *s) {
    bool comma = true, ok = true;
    out->ndim = 0;
    if (!take(s, '('))
        return malformed(s, "shape is not a tuple");
    while (!take(s, ')')) {
        int64_t extent;
        if (!comma || !read_extent(&extent, s, &ok))
            return malformed(s, "shape is not a tuple of integers");
        if (!ok)
            return malformed(s, "shape holds a negative or too large number");
        if (out->ndim == FEATINV_MAX_DIMS)
            return fi_fail(FEATINV_ERROR_SHAPE, "%s: more than %d dimensions", s->path,
                           FEATINV_MAX_DIMS);
        out->shape[out->ndim++] = extent;
        comma = take(s, ',');
    }
    if (out->ndim == 1 && !comma)
        return malformed(s, "shape is not a tuple");
    return FEATINV_OK;
}

featinv_status fi_npy_parse(fi_npy *out, const char *text, size_t size, const char *path) {
    static const char *const names[3] = {"descr", "fortran_order", "shape"};
    scanner s = {text, text + size, path};
    unsigned seen = 0;
    bool comma = true;
    memset(out, 0, sizeof *out);
    if (!take(&s, '{'))
        return malformed(&s, "is not a dict");
    while (!take(&s, '}')) {
        char key[16];
        unsigned which = 0;
        if (!comma || !take_string(&s, key, sizeof key) || !take(&s, ':'))
            return malformed(&s, "is not a dict of descr, fortran_order and shape");
        while (which < 3 && strcmp(key, names[which]) != 0)
            which++;
        if (which == 3 || seen & 1u << which)
            return malformed(&s, "holds an unknown or a double key");
        seen |= 1u << which;
        featinv_status status = FEATINV_OK;
        if (which == 0)
            status = read_dtype(out, &s);
        else if (which == 2)
            status = read_shape(out, &s);
        else if (!read_bool(&out->fortran, &s))
            status = malformed(&s, "fortran_order is neither True nor False");
        if (status)
            return status;
        comma = take(&s, ',');
    }
    skip_space(&s);
    if (seen != 7 || s.at != s.end)
        return malformed(&s, seen != 7 ? "lacks descr, fortran_order or shape"
                                       : "holds more than a dict");
    if (!fi_checked_size(&out->data_bytes, out->shape, out->ndim, fi_dtype_size(out->dtype)))
        return malformed(&s, "shape is too large");
    return FEATINV_OK;
}

/* ---------------------------------------------------------------- writing -------------------- */

/* The header of a dtype (with its byte order) and a shape as Python writes it. */
static size_t put_header(char header[FI_NPY_HEADER_MOST], const char *description,
                         const char *tuple) {
    char text[FI_NPY_HEADER_MOST - 64];
    int length =
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                 description, tuple);

    size_t used = 10 + (size_t)length + 1; /* prefix, text, newline */
    size_t total = (used + 63) / 64 * 64;
    memcpy(header, magic, sizeof magic);
    header[6] = 1;
    header[7] = 0;
    fi_put_le16((uint8_t *)header + 8, (uint16_t)(total - 10));
    memcpy(header + 10, text, (size_t)length);
    memset(header + 10 + length, ' ', total - used);
    header[total - 1] = '\n';
    return total;
}

size_t fi_npy_format(char header[FI_NPY_HEADER_MOST], featinv_dtype dtype, int32_t ndim,
                     const int64_t *shape) {
    const char *kind = NULL;
    for (int i = 0; i < DESCRIPTIONS; i++)
        if (descriptions[i].dtype == dtype)
            kind = descriptions[i].text;
    if (!kind || ndim < 0 || ndim > FEATINV_MAX_DIMS)
        return 0;
    char tuple[256], description[8];
    fi_shape_text(tuple, sizeof tuple, shape, ndim);
    char order = fi_dtype_size(dtype) == 1 ? '|' : FI_BIG_ENDIAN_HOST ? '>' : '<';
    (void)snprintf(description, sizeof description, "%c%.2s", order, kind);
    return put_header(header, description, tuple);
}

size_t fi_npy_format_text(char header[FI_NPY_HEADER_MOST], uint16_t length) {
    char description[16];
    (void)snprintf(description, sizeof description, "|S%u", (unsigned)length);
    return put_header(header, description, "()");
}
