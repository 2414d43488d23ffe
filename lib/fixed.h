/* Rows in 16-bit fixed point, and their inner products: stretches of each sum in exact integers,
 * which on x86-64 with AVX2 are twice as fast as float32 products. */
#ifndef FI_FIXED_H
#define FI_FIXED_H

#include "featinv.h"

#include <stdbool.h>

enum { FI_FIXED_COLUMNS = 256 }; /* rows of the right factor that are packed together */
enum { FI_FIXED_ROWS = 48 };     /* rows of the left factor in one call */

typedef struct fi_fixed {
    int16_t *values; /* (n + padding, width): round(x * scale), zeros behind */
    int16_t *packed; /* (width / 2, FI_FIXED_COLUMNS, 2) in panels: the right factor */
    int64_t n, width;
    double scale;
    double rounding; /* bound on |product / scale^2 - inner product| */
} fi_fixed;

/* Whether this processor has the instructions. */
bool fi_fixed_supported(void);
/* rows (n, d), finite, not all zero; longest: the largest norm of a row. Errors: MEMORY. */
featinv_status fi_fixed_create(fi_fixed *out, const float *rows, int64_t n, int64_t d,
                               double longest);
void fi_fixed_free(fi_fixed *fixed); /* all zero is fine */

/* Makes rows first .. first + count - 1 the right factor; count <= FI_FIXED_COLUMNS. */
void fi_fixed_pack(fi_fixed *fixed, int64_t first, int64_t count);
/* out (FI_FIXED_ROWS, FI_FIXED_COLUMNS) = products of rows first .. with the right factor; rows and
 * columns that do not exist give 0. Threads may share `fixed`. */
void fi_fixed_multiply(float *out, const fi_fixed *fixed, int64_t first);

#endif
