/* Resizing where only a part of the result is wanted: the middle of a wide picture, say. */
#ifndef FI_RESIZE_H
#define FI_RESIZE_H

#include "featinv.h"

/* One side of the result: how long the whole would be, and which part of it is made. A whole side
 * need not fit into memory, not even into 32 bits. 0 <= begin, 1 <= count, begin + count <= whole.
 */
typedef struct fi_resize_side {
    int64_t whole, begin;
    int32_t count;
} fi_resize_side;

/* The bytes that featinv_image_resize to the whole size would have there; out is packed RGB of
 * rows.count * columns.count pixels. Memory and time go with the part. image: row_bytes is set. */
featinv_status fi_resize_part(uint8_t *out, fi_resize_side columns, fi_resize_side rows,
                              const featinv_image *image, featinv_filter filter);

#endif
