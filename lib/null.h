/* What a random subspace would do: the null that a concept's difference map is held against. */
#ifndef FI_NULL_H
#define FI_NULL_H

#include "featinv.h"

#include <stdbool.h>

/* One random subspace at a time, of maps (channels, positions). */
typedef struct fi_null {
    size_t channels, positions, rows;
    bool complement; /* the subspace is what is orthogonal to the rows */
    double *basis;   /* (rows, channels), orthonormal */
    double *part;    /* (channels, positions) */
    double *sums;    /* (positions) */
    float *values;   /* (channels) */
} fi_null;

/* Memory for subspaces of up to `dimension` dimensions. fi_null_close frees it, also after a
 * failure. */
featinv_status fi_null_open(fi_null *null, size_t channels, size_t positions, size_t dimension);
void fi_null_close(fi_null *null);

/* Draws a subspace, uniformly among those of that dimension. It depends on the seed, the draw and
 * the concept's number, not on the map or on the other concepts. */
void fi_null_draw(fi_null *null, size_t dimension, uint64_t seed, uint32_t draw,
                  int32_t concept_index);

/* Turns the map's part in the subspace down, up where `up`, until the map has changed by as much
 * energy (sum of squares over the map) as from map to changed. */
void fi_null_map(float *out, fi_null *null, const float *map, const float *changed, bool up);

#endif
